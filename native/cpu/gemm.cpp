#include <algorithm>

#include "denormals.h"
#include "queue.h"

namespace root_optimizer::cpu {

namespace {

int64_t blocks_of(int64_t length, int64_t side) { return (length + side - 1) / side; }

// How a result is divided into square blocks; if it is symmetric, what lies on and below the diagonal.
struct Division {
  int64_t side, rows, columns;
  bool symmetric;

  int64_t count() const {
    const int64_t down = blocks_of(rows, side);
    return symmetric ? down * (down + 1) / 2 : down * blocks_of(columns, side);
  }
  Block block(int64_t index) const {
    const int64_t across = blocks_of(columns, side);
    int64_t i = 0;
    if (symmetric) {
      while ((i + 1) * (i + 2) / 2 <= index) ++i;
    } else {
      i = index / across;
    }
    const int64_t row = i * side;
    const int64_t column = (symmetric ? index - i * (i + 1) / 2 : index % across) * side;
    return {.row0 = row,
            .rows = std::min(side, rows - row),
            .column0 = column,
            .columns = std::min(side, columns - column)};
  }
};

}  // namespace

// A team takes smaller blocks, so that its threads end at about the same time. Small products are divided into the
// smallest blocks, unless such a block takes less time than handing it out. No sum depends on the side.
int64_t CpuQueue::block_side(int64_t columns) const {
  if (team_ == nullptr) return kGemmBlock;
  return columns > kGemmBlock && columns <= 3 * kGemmBlock ? kGemmBlock / 4 : kGemmBlock / 2;
}

void CpuQueue::for_blocks(int64_t rows, int64_t columns, bool symmetric, FunctionRef<void(const Block&)> task) {
  const Division division{.side = block_side(columns), .rows = rows, .columns = columns, .symmetric = symmetric};
  for_each(division.count(), [&](int64_t index) {
    const FlushDenormals flush;
    task(division.block(index));
  });
}

// Runs a product's kernel on every block of its result, of which the first `rows` rows are computed.
template <typename Work, typename Kernel>
void CpuQueue::run_blocks(const Work& product, int64_t rows, int64_t columns, Kernel kernel) {
  for_blocks(rows, columns, product.symmetric, [&](const Block& block) {
    Work part = product;
    part.at = block;
    kernel(part);
  });
}

GemmBlock CpuQueue::float_product(const Product& p, Result result) const {
  const bool symmetric = result == Result::symmetric;
  const PanelLayout a = layout(p.a);
  return {.a = floats(p.a),
          .b = floats(p.b),
          .c = floats(p.c),
          .out = floats(p.out),
          .a_pitch = a.pitch(),
          .b_pitch = layout(p.b).pitch(),
          .c_pitch = layout(p.c).pitch(),
          .out_pitch = layout(p.out).pitch(),
          .depth = symmetric ? a.rows : a.columns,
          .depth_block = depth_block_,
          .alpha = p.alpha,
          .beta = p.beta,
          .transposed = symmetric,
          .symmetric = symmetric,
          .at = {}};
}

// A symmetric product reads a's pairs of rows, any other a's pairs of columns and writes both kinds.
PairBlock CpuQueue::pair_product(const Product& p, Result result) const {
  const bool symmetric = result == Result::symmetric;
  const PanelLayout a = layout(p.a);
  const PanelLayout out = layout(p.out);
  return {.a = words(p.a) + (symmetric ? 0 : a.copy_size()),
          .b = words(p.b),
          .c = words(p.c),
          .out = out.is_paired() ? words(p.out) : nullptr,
          .out_columns = symmetric ? nullptr : words(p.out) + out.copy_size(),
          .out_floats = out.is_paired() ? nullptr : floats(p.out),
          .a_pitch = a.pitch(),
          .b_pitch = layout(p.b).pitch(),
          .c_pitch = layout(p.c).pitch(),
          .out_pitch = out.pitch(),
          .depth = ((symmetric ? a.rows : a.columns) + 1) / 2,
          .alpha = p.alpha,
          .beta = p.beta,
          .transposed = symmetric,
          .symmetric = symmetric,
          .at = {}};
}

// Parts of the result are as large as the caches allow, unless a team would have too few of them. No sum depends on it.
void CpuQueue::multiply_tiles(const Product& p, Result result) {
  const bool symmetric = result == Result::symmetric;
  const PanelLayout a = layout(p.a);
  const PanelLayout out = layout(p.out);
  Division division{.side = kTileBlock, .rows = out.rows, .columns = out.columns, .symmetric = symmetric};
  if (symmetric) division.rows = division.columns;
  const int threads = team_ == nullptr ? 1 : team_->threads();
  while (threads > 1 && division.side > 2 * Blocks::kSide && division.count() < 4 * threads) division.side /= 2;
  const size_t mark = arena_.mark();
  const int parts = a.parts();
  uint32_t* const packed = arena_.take_array<uint32_t>(threads * packed_words(parts));
  float* const sums = arena_.take_array<float>(threads * kTileSums);
  const TileBlock product{.a = blocks(p.a),
                          .b = blocks(p.b),
                          .c = p.beta == 0 ? Blocks{} : blocks(p.c),
                          .out = blocks(p.out),
                          .rows = division.rows,
                          .columns = division.columns,
                          .depth = symmetric ? a.padded_rows() / Blocks::kSide : a.panels(),
                          .alpha = p.alpha,
                          .beta = p.beta,
                          .symmetric = symmetric,
                          .at = {},
                          .packed = nullptr,
                          .sums = nullptr};
  const auto task = [&](int64_t index, int slot) {
    TileBlock part = product;
    part.at = division.block(index);
    part.packed = packed + slot * packed_words(parts);
    part.sums = sums + slot * kTileSums;
    const FlushDenormals flush;
    kernels_.tiles->multiply(part, parts);
  };
  if (team_ == nullptr) {
    for (int64_t i = 0; i < division.count(); ++i) task(i, 0);
  } else {
    team_->for_each(division.count(), Order::by_place, task);
  }
  arena_.rewind(mark);
}

void CpuQueue::multiply(const Product& p, Result result) {
  if (kernels_.tiles != nullptr) return multiply_tiles(p, result);
  const PanelLayout out = layout(p.out);
  const bool paired = layout(p.a).is_paired();
  const int64_t rows = paired ? out.padded_rows() : out.paired_rows();
  const int64_t columns = result == Result::symmetric ? rows : out.columns;
  if (paired) {
    run_blocks(pair_product(p, result), rows, columns, kernels_.pairs->gemm_block);
  } else {
    run_blocks(float_product(p, result), rows, columns, kernels_.gemm_block);
  }
}

void CpuQueue::gemm_symmetric(const Product& p) { multiply(p, Result::symmetric); }

void CpuQueue::gemm(const Product& p) {
  if (p.b.precision != p.a.precision) return gemm_narrowed(p);
  multiply(p, Result::general);
  if (p.update != nullptr) update(*p.update, p.out);
}

// Rounding a square causes errors in proportion to its largest values. Q's largest values lie on its diagonal and are
// much alike, so their mean is left out of the rounding and multiplied as a float.
void CpuQueue::gemm_narrowed(const Product& p) {
  const size_t mark = arena_.mark();
  Product rounded = p;
  const float diagonal = mean_of_diagonal(p.b);
  rounded.beta += diagonal;
  rounded.b = narrowed(p.b, diagonal);
  gemm(rounded);
  arena_.rewind(mark);
}

// Returns square − diagonal·I in pairs of rows, in scratch that the caller gives back.
Operand CpuQueue::narrowed(const Operand& square, float diagonal) {
  const PanelLayout from = layout(square);
  PanelLayout to = from;
  to.precision = Precision::bfloat16;
  auto* const pairs = arena_.take_array<uint32_t>(to.copy_size());
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

}  // namespace root_optimizer::cpu
