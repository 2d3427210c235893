#include <algorithm>

#include "denormals.h"
#include "queue.h"

namespace root_optimizer {

namespace {

int64_t blocks(int64_t length, int64_t side) { return (length + side - 1) / side; }

}  // namespace

// A team shares out products in smaller blocks, so that its threads end at about the same time; small products in the
// smallest, unless these take less time than to hand them out. No sum depends on it.
int64_t CpuQueue::block_side(int64_t columns) const {
  if (team_ == nullptr) return kGemmBlock;
  return columns > kGemmBlock && columns <= 3 * kGemmBlock ? kGemmBlock / 4 : kGemmBlock / 2;
}

void CpuQueue::for_blocks(int64_t rows, int64_t columns, bool symmetric,
                          FunctionRef<void(int64_t, int64_t, int64_t, int64_t)> task) {
  const int64_t side = block_side(columns);
  const int64_t down = blocks(rows, side);
  const int64_t across = blocks(columns, side);
  for_each(symmetric ? down * (down + 1) / 2 : down * across, [&](int64_t index) {
    int64_t i = 0;
    if (symmetric) {
      while ((i + 1) * (i + 2) / 2 <= index) ++i;
    } else {
      i = index / across;
    }
    const int64_t row = i * side;
    const int64_t column = (symmetric ? index - i * (i + 1) / 2 : index % across) * side;
    const FlushDenormals flush;
    task(row, std::min(side, rows - row), column, std::min(side, columns - column));
  });
}

void CpuQueue::gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                              const Operand& c) {
  const int64_t pitch = layout(a).pitch();
  const PanelLayout square = layout(out);
  const int64_t size = layout(a).paired() ? square.padded_rows() : square.paired_rows();
  for_blocks(size, size, true, [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
    if (layout(a).paired()) {
      const bool pairs = square.paired();
      kernels_.pairs->gemm_block({words(a), words(b), words(c), pairs ? words(out) : nullptr, nullptr,
                                  pairs ? nullptr : floats(out), pitch, pitch, layout(c).pitch(), square.pitch(), row,
                                  rows, column, columns, (a.rows + 1) / 2, alpha, beta, true, true});
    } else {
      kernels_.gemm_block({floats(a), floats(b), floats(c), floats(out), pitch, pitch, square.pitch(), square.pitch(),
                           row, rows, column, columns, a.rows, depth_block_, alpha, beta, true, true});
    }
  });
}

Operand CpuQueue::narrowed(const Operand& square, float diagonal) {
  const PanelLayout from = layout(square);
  PanelLayout to = from;
  to.precision = Precision::bfloat16;
  uint32_t* pairs = static_cast<uint32_t*>(arena_.take(sizeof(uint32_t) * size_t(to.copy_size())));
  const int64_t width = from.width;
  for_each(from.panels(), [&](int64_t panel) {
    const float* in = floats(square) + panel * from.pitch();
    uint32_t* out = pairs + panel * to.pitch();
    const auto narrow = [&](const float* rows, int64_t first, int64_t count) {
      kernels_.pairs->narrow(rows, count, out + first * width / 2, nullptr);
    };
    const int64_t begin = panel * width;
    const int64_t end = std::min(begin + width, from.padded_rows());
    narrow(in, 0, begin);
    narrow(in + end * width, end, from.padded_rows() - end);
    float on_diagonal[kWidestPanel * kWidestPanel];
    std::copy(in + begin * width, in + end * width, on_diagonal);
    for (int64_t i = begin; i < std::min(end, from.rows); ++i) on_diagonal[(i - begin) * (width + 1)] -= diagonal;
    narrow(on_diagonal, begin, end - begin);
  });
  Operand rounded = square;
  rounded.storage = pairs;
  rounded.precision = to.precision;
  return rounded;
}

float CpuQueue::mean_of_diagonal(const Operand& square) const {
  const PanelLayout panels = layout(square);
  double sum = 0;
  for (int64_t i = 0; i < panels.rows; ++i) {
    sum += double(floats(square)[i / panels.width * panels.pitch() + i * panels.width + i % panels.width]);
  }
  return float(sum / double(panels.rows));
}

// A square that has to be rounded loses about as much as its largest values have: Q's are on its diagonal, all much
// alike, and are multiplied as a float.
void CpuQueue::gemm_narrowed(const Operand& out, const Operand& a, const Operand& b) {
  const size_t mark = arena_.mark();
  const float diagonal = mean_of_diagonal(b);
  gemm(out, a, narrowed(b, diagonal), diagonal, a);
  arena_.rewind(mark);
}

void CpuQueue::gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) {
  if (b.precision != a.precision) return gemm_narrowed(out, a, b);
  const PanelLayout tall = layout(out);
  const int64_t pitch = tall.pitch();
  const int64_t square = layout(b).pitch();
  for_blocks(tall.paired() ? tall.padded_rows() : tall.paired_rows(), out.columns, false,
             [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
               if (tall.paired()) {
                 kernels_.pairs->gemm_block({words(a) + tall.copy_size(), words(b), words(c), words(out),
                                             words(out) + tall.copy_size(), nullptr, pitch, square, pitch, pitch, row,
                                             rows, column, columns, (a.columns + 1) / 2, 1, beta, false, false});
               } else {
                 kernels_.gemm_block({floats(a), floats(b), floats(c), floats(out), pitch, square, pitch, pitch, row,
                                      rows, column, columns, a.columns, depth_block_, 1, beta, false, false});
               }
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
