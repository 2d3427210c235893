#include <algorithm>

#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::update(std::span<const Batch> batches, std::span<const Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) update(batches[i], x[i]);
}

void CpuQueue::update(const Batch& batch, const Operand& x) {
  const float decay = only(batch).scalars->decay;
  const float rate = only(batch).scalars->rate;
  if (decay == 1 && rate == 0) return;
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  float* data = only(batch).data;
  for_strips(panels, Strips::by_rows, [&](int64_t row, int64_t panel) {
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t length = std::min(kStrip, panels.rows - row);
    float wide[kWidestPanel * kStrip];
    const float* in = wide;
    if (panels.is_paired()) {
      kernels_.pairs->widen(words(x) + panel * panels.pitch() + row * width / 2, (length + 1) / 2 * 2, wide);
    } else {
      in = floats(x) + panel * panels.pitch() + row * width;
    }
    kernels_.update_strip(data, strip_of(batch, row, length, first, columns), in, decay, rate);
  });
}

}  // namespace root_optimizer::cpu
