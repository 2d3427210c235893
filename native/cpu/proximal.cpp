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
  const bool transposed = batch.rows < batch.columns;
  for_strips(panels, transposed, [&](int64_t row, int64_t panel) {
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t padded = std::min(kStrip, panels.padded_rows() - row);
    const int64_t length = std::clamp<int64_t>(panels.rows - row, 0, padded);
    float strip[kWidestPanel * kStrip];
    float wide[kWidestPanel * kStrip];
    float* out = panels.paired() ? wide : floats(x) + panel * panels.pitch() + row * width;
    std::fill(out, out + padded * width, 0.0f);
    if (!transposed) {
      for (int64_t r = 0; r < length; ++r) {
        kernels_.advance(u, (row + r) * batch.columns + first, columns, limit, factor, out + r * width);
      }
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        kernels_.advance(u, (first + c) * batch.columns + row, length, limit, factor, strip + c * kStrip);
      }
      kernels_.transpose(strip, kStrip, out, width, columns, length);
    }
    if (panels.paired()) {
      uint32_t* pairs = words(x) + panel * panels.pitch() + row * width / 2;
      kernels_.pairs->narrow(out, padded, pairs, pairs + panels.copy_size());
    }
  });
  return x;
}

}  // namespace root_optimizer
