#include <algorithm>

#include "denormals.h"
#include "queue.h"

namespace root_optimizer {

namespace {

int64_t blocks(int64_t length, int64_t side) { return (length + side - 1) / side; }

}  // namespace

// A team shares out small products in smaller blocks, for want of enough to go round. No sum depends on it.
int64_t CpuQueue::block_side(int64_t columns) const {
  return team_ != nullptr && columns <= 3 * kGemmBlock ? kGemmBlock / 2 : kGemmBlock;
}

// Blocks on and below the diagonal, row by row.
void CpuQueue::gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                              const Operand& c) {
  const PanelLayout square = layout(out);
  const int64_t pitch = layout(a).pitch();
  const int64_t size = square.padded_rows();
  const int64_t side = block_side(size);
  const int64_t across = blocks(size, side);
  for_each(across * (across + 1) / 2, [&](int64_t index) {
    int64_t i = 0;
    while ((i + 1) * (i + 2) / 2 <= index) ++i;
    const int64_t row = i * side;
    const int64_t column = (index - i * (i + 1) / 2) * side;
    const FlushDenormals flush;
    kernels_.gemm_block({floats(a), floats(b), floats(c), floats(out), pitch, pitch, square.pitch(), square.pitch(),
                         row, std::min(side, size - row), column, std::min(side, size - column), a.rows,
                         transposed_depth_block_, alpha, beta, true, true});
  });
}

void CpuQueue::gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) {
  const PanelLayout tall = layout(out);
  const int64_t pitch = tall.pitch();
  const int64_t rows = tall.padded_rows();
  const int64_t side = block_side(out.columns);
  const int64_t across = blocks(out.columns, side);
  for_each(blocks(rows, side) * across, [&](int64_t index) {
    const int64_t row = index / across * side;
    const int64_t column = index % across * side;
    const FlushDenormals flush;
    kernels_.gemm_block({floats(a), floats(b), floats(c), floats(out), pitch, layout(b).pitch(), pitch, pitch, row,
                         std::min(side, rows - row), column, std::min(side, out.columns - column), a.columns,
                         depth_block_, 1, beta, false, false});
  });
}

void CpuQueue::add_identity(const Operand& out, const Operand& z, float a) {
  const PanelLayout square = layout(z);
  for_each(square.panels(), [&](int64_t panel) {
    const float* from = floats(z) + panel * square.pitch();
    float* to = floats(out) + panel * square.pitch();
    std::copy(from, from + square.padded_rows() * square.width, to);
    const int64_t first = panel * square.width;
    for (int64_t i = first; i < std::min(first + square.width, square.columns); ++i)
      to[i * square.width + i - first] += a;
  });
}

}  // namespace root_optimizer
