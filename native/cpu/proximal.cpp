#include <algorithm>

#include "queue.h"

namespace root_optimizer {

Operand CpuQueue::proximal(const Batch& batch) {
  const Item& item = only(batch);
  const Clip& clip = *item.clip;
  if (item.threshold != nullptr) *item.threshold = clip.threshold;
  const float limit = clip_limit(item.threshold == nullptr ? 0 : clip.threshold);
  const double factor = 1 / (clip.norm + 1e-7);
  const LookAhead u = look_ahead(batch);

  const Operand x = operand(batch, batch.tall(), batch.narrow(), precision_);
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  for_strips(panels, batch.transposed(), [&](int64_t row, int64_t panel) {
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t padded = std::min(kStrip, panels.padded_rows() - row);
    const int64_t length = std::min(kStrip, panels.rows - row);
    float wide[kWidestPanel * kStrip];
    float* out = panels.paired() ? wide : floats(x) + panel * panels.pitch() + row * width;
    if (columns < width || length < padded) std::fill(out, out + padded * width, 0.0f);
    kernels_.enter(u, strip_of(batch, row, length, first, columns), limit, factor, out);
    if (panels.paired()) {
      uint32_t* pairs = words(x) + panel * panels.pitch() + row * width / 2;
      kernels_.pairs->narrow(out, padded, pairs, pairs + panels.copy_size());
    }
  });
  return x;
}

}  // namespace root_optimizer
