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

  const Operand x = operand(batch, batch.tall(), batch.narrow());
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  const bool transposed = batch.rows < batch.columns;
  const int64_t tasks_down = (panels.padded_rows() + kGemmBlock - 1) / kGemmBlock;
  for_each(panels.panels() * tasks_down, [&](int64_t index) {
    const int64_t panel = index / tasks_down;
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t begin = index % tasks_down * kGemmBlock;
    const int64_t end = std::min(begin + kGemmBlock, panels.padded_rows());
    const int64_t filled = std::min(end, panels.rows);
    float* out = floats(x) + panel * panels.pitch();
    std::fill(out + begin * width, out + end * width, 0.0f);
    if (!transposed) {
      for (int64_t row = begin; row < filled; ++row) {
        kernels_.clip_and_scale(u, row * batch.columns + first, columns, limit, factor, out + row * width);
      }
      return;
    }
    float strip[kWidestPanel * kStrip];
    for (int64_t row = begin; row < filled; row += kStrip) {
      const int64_t length = std::min(kStrip, filled - row);
      for (int64_t c = 0; c < columns; ++c) {
        kernels_.clip_and_scale(u, (first + c) * batch.columns + row, length, limit, factor, strip + c * kStrip);
      }
      kernels_.transpose(strip, kStrip, out + row * width, width, columns, length);
    }
  });
  return x;
}

}  // namespace root_optimizer
