#include <algorithm>
#include <cmath>

#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::update(std::span<const Batch> batches, std::span<const Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) update(batches[i], x[i]);
}

// Rows [row, row + kStrip) of a panel as floats; `room` has place for them.
const float* CpuQueue::strip_floats(const Operand& x, int64_t row, int64_t panel, float* room) const {
  const PanelLayout panels = layout(x);
  if (panels.is_tiled) {
    for (int64_t r = 0; r < std::min(kStrip, panels.padded_rows() - row); r += Blocks::kSide) {
      kernels_.tiles->widen(blocks(x), (row + r) / Blocks::kSide, panel, panels.parts(), room + r * panels.width);
    }
    return room;
  }
  if (!panels.is_paired()) return floats(x) + panel * panels.pitch() + row * panels.width;
  const int64_t length = std::min(kStrip, panels.rows - row);
  kernels_.pairs->widen(words(x) + panel * panels.pitch() + row * panels.width / 2, (length + 1) / 2 * 2, room);
  return room;
}

void CpuQueue::update(const Batch& batch, const Operand& x) {
  const MatrixScalars& scalars = *only(batch).scalars;
  const size_t mark = arena_.mark();
  const float* factors = batch.normalized ? row_factors(batch, x) : nullptr;
  if (scalars.decay == 1 && scalars.rate == 0) return arena_.rewind(mark);
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  const bool down = x.is_wide() == batch.in_out;  // whether the rows to normalize are rows of the panels
  float* data = only(batch).data;
  for_strips(panels, Strips::by_rows, [&](int64_t row, int64_t panel) {
    const int64_t first = panel * width;
    const int64_t columns = std::min(width, panels.columns - first);
    const int64_t length = std::min(kStrip, panels.rows - row);
    float room[kWidestPanel * kStrip];
    const float* in = strip_floats(x, row, panel, room);
    if (factors != nullptr) {
      for (int64_t r = 0; r < length; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          room[r * width + c] = in[r * width + c] * factors[down ? row + r : first + c];
        }
      }
      in = room;
    }
    kernels_.update_strip(data, strip_of(batch, row, length, first, columns), in,
                          {.decay = scalars.decay, .rate = scalars.rate, .cautious = scalars.cautious});
  });
  arena_.rewind(mark);
}

// v ← β₂v + (1 − β₂)·mean of X², row by row, and the factor that normalizes each row of X: 1 / (√v + 1e-8), times what
// scales X back to the norm that it had. The factors lie in scratch that the caller gives back.
float* CpuQueue::row_factors(const Batch& batch, const Operand& x) {
  const PanelLayout panels = layout(x);
  const int64_t width = panels.width;
  const bool down = x.is_wide() == batch.in_out;
  const int64_t rows = down ? panels.rows : panels.columns;
  const int64_t length = down ? panels.columns : panels.rows;
  auto* const factors = arena_.take_array<float>(panels.rows);
  auto* const squares = arena_.take_array<double>(panels.rows);
  std::fill(squares, squares + rows, 0);
  // A task adds up whole rows, so that no sum depends on the threads: strips of all panels, or all strips of a panel.
  const auto add = [&](int64_t row, int64_t panel) {
    float room[kWidestPanel * kStrip];
    const float* in = strip_floats(x, row, panel, room);
    const int64_t first = panel * width;
    for (int64_t r = 0; r < std::min(kStrip, panels.rows - row); ++r) {
      for (int64_t c = 0; c < std::min(width, panels.columns - first); ++c) {
        const double value = in[r * width + c];
        squares[down ? row + r : first + c] += value * value;
      }
    }
  };
  const int64_t strips = ranges_of(panels.rows, kStrip);
  for_each(down ? strips : panels.panels(), [&](int64_t i) {
    for (int64_t k = 0; k < (down ? panels.panels() : strips); ++k) {
      down ? add(i * kStrip, k) : add(k * kStrip, i);
    }
  });

  const double beta2 = only(batch).scalars->beta2;
  double before = 0;
  double after = 0;
  for (int64_t i = 0; i < rows; ++i) {
    float& v = only(batch).row_second_moment[i];
    v = float(beta2 * v + (1 - beta2) * squares[i] / double(length));
    const double factor = 1 / (std::sqrt(double(v)) + 1e-8);
    before += squares[i];
    after += squares[i] * factor * factor;
    factors[i] = float(factor);
  }
  const double scale = after > 0 ? std::sqrt(before / after) : 0;
  for (int64_t i = 0; i < rows; ++i) factors[i] = float(factors[i] * scale);
  return factors;
}

}  // namespace root_optimizer::cpu
