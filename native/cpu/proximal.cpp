#include <algorithm>
#include <cmath>

#include "queue.h"

namespace root_optimizer {

// In float64: float32 squares overflow from 1e19 on.
double CpuQueue::clipped_norm(const LookAhead& u, int64_t size, float limit) {
  const size_t mark = arena_.mark();
  const int64_t count = (size + kPassGrain - 1) / kPassGrain;
  double* partial = static_cast<double*>(arena_.take(size_t(count) * sizeof(double)));
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    partial[begin / kPassGrain] = kernels_.clipped_squares(u, begin, end, limit);
  });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += partial[i];
  arena_.rewind(mark);
  return std::sqrt(total);
}

Operand CpuQueue::proximal(const Batch& batch) {
  const LookAhead u = look_ahead(batch);
  const float limit = clip_limit(batch);
  const double norm = norm_ ? *norm_ : clipped_norm(u, batch.size(), limit);
  const double factor = 1 / (norm + 1e-7);

  const Operand x = operand(batch, batch.tall(), batch.narrow(), precision_);
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  const bool transposed = batch.rows < batch.columns;
  for_strips(panels, [&](int64_t row, int64_t panel) {
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
        kernels_.clip_and_scale(u, (row + r) * batch.columns + first, columns, limit, factor, out + r * width);
      }
    } else {
      for (int64_t c = 0; c < columns; ++c) {
        kernels_.clip_and_scale(u, (first + c) * batch.columns + row, length, limit, factor, strip + c * kStrip);
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
