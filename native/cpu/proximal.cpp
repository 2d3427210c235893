#include <algorithm>

#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::proximal(std::span<const Batch> batches, std::span<Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) {
    x[i] = operand(batches[i].rows, batches[i].columns, 1, precision_, false);
    proximal(batches[i], x[i]);
  }
}

void CpuQueue::proximal(const Batch& batch, const Operand& x) {
  const Matrix& matrix = only(batch);
  const Clip& clip = clips_[matrix.index];
  if (batch.clips) matrix.thresholds->threshold = clip.threshold;
  if (batch.clips_gradient) remember(*matrix.thresholds, clip, matrix.scalars->gradient);
  const float limit = clip_limit(batch.clips ? clip.threshold : 0);
  const double factor = 1 / (clip.norm + 1e-7);
  const LookAhead u = look_ahead_of(batch);

  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  for_strips(panels, x.is_wide() ? Strips::by_panels : Strips::by_rows, [&](int64_t row, int64_t panel) {
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t padded = std::min(kStrip, panels.padded_rows() - row);
    const int64_t length = std::min(kStrip, panels.rows - row);
    alignas(64) float wide[kWidestPanel * kStrip];
    float* out = panels.is_paired() || panels.is_tiled ? wide : floats(x) + panel * panels.pitch() + row * width;
    if (columns < width || length < padded) std::fill(out, out + padded * width, 0.0f);
    kernels_.proximal_strip(u, strip_of(batch, row, length, first, columns), limit, factor, out);
    if (panels.is_paired()) {
      uint32_t* pairs = words(x) + panel * panels.pitch() + row * width / 2;
      kernels_.pairs->narrow(out, padded, pairs, pairs + panels.copy_size());
    }
    if (panels.is_tiled) {
      for (int64_t r = 0; r < padded; r += Blocks::kSide) {
        kernels_.tiles->narrow(out + r * width, blocks(x), (row + r) / Blocks::kSide, panel, panels.parts());
      }
    }
  });
}

}  // namespace root_optimizer::cpu
