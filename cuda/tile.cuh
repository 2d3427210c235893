#pragma once

// Which tile of which matrix a block of a product computes.

#include <algorithm>
#include <limits>

#include "gemm.cuh"
#include "launch.cuh"

namespace root_optimizer::cuda {

/// The rows of tiles that are computed together, column by column, so that blocks which run at the same time find each
/// other's operands in the L2 cache.
constexpr unsigned kGroup = 8;

/// The first element of a tile, and the matrix that it is in.
struct Tile {
  int64_t matrix;
  int64_t row;
  int64_t column;
};

__host__ __device__ inline unsigned tiles_along(int64_t length, int side) {
  return unsigned((length + side - 1) / side);
}

/// The number of tiles of kRows × kColumns elements that a matrix needs, its padding included, which must come out as
/// zeros. Of a symmetric matrix those count which hold something on or below the diagonal, where kRows is a multiple of
/// kColumns. A few of them may lie past the right edge.
template <bool kSymmetric, int kRows, int kColumns>
__host__ __device__ unsigned tile_count(const StoredMatrices& out) {
  if (!kSymmetric) return tiles_along(out.rows, kRows) * tiles_along(out.pitch, kColumns);
  const unsigned down = tiles_along(out.pitch, kRows);
  return down * (down + 1) / 2 * (kRows / kColumns);
}

template <bool kSymmetric, int kRows, int kColumns>
__device__ Tile tile_of_block(const StoredMatrices& out, int64_t first_matrix) {
  constexpr unsigned kRatio = kSymmetric ? kRows / kColumns : 1;
  static_assert(!kSymmetric || kRows % kColumns == 0);
  const unsigned count = tile_count<kSymmetric, kRows, kColumns>(out);
  const unsigned across = tiles_along(out.pitch, kColumns);
  const unsigned down = tiles_along(kSymmetric ? out.pitch : out.rows, kRows);
  unsigned index = blockIdx.x % count;
  unsigned first = 0;
  unsigned row;
  unsigned column;
  if (!kSymmetric) {
    first = index / (kGroup * across) * kGroup;
    index -= first * across;
    const unsigned height = min(kGroup, down - first);
    row = first + index % height;
    column = index / height;
  } else {
    // A group is a rectangle and, at its right end, a triangle.
    unsigned height = min(kGroup, down);
    const auto size = [&] { return (height * first + height * (height + 1) / 2) * kRatio; };
    while (index >= size()) {
      index -= size();
      first += kGroup;
      height = min(kGroup, down - first);
    }
    if (index < height * first * kRatio) {
      row = first + index % height;
      column = index / height;
    } else {
      index -= height * first * kRatio;
      column = first * kRatio;
      // Each step of the triangle is kRatio columns wide and one row lower than the step before.
      for (; index >= height * kRatio; --height, column += kRatio) index -= height * kRatio;
      row = column / kRatio + index % height;
      column += index / height;
    }
  }
  return {
      .matrix = first_matrix + blockIdx.x / count, .row = int64_t(row) * kRows, .column = int64_t(column) * kColumns};
}

/// SliceRange of the depth.
struct SliceRange {
  int first;
  int count;
};

/// The slices that this block multiplies.
template <int kDepth>
__device__ SliceRange slices_of_part(const Gemm& gemm, int64_t depth) {
  const int all = int(tiles_along(depth, kDepth));
  if (gemm.parts == nullptr) return {0, all};
  const int most = int(gemm.part_depth / kDepth);
  const int first = int(blockIdx.y) * most;
  return {first, min(most, all - first)};
}

inline unsigned part_count(const Gemm& gemm) {
  if (gemm.parts == nullptr) return 1;
  const bool along_rows = gemm.contraction != Contraction::columns_by_columns;
  return unsigned(((along_rows ? gemm.a.columns : gemm.a.rows) + gemm.part_depth - 1) / gemm.part_depth);
}

/// Calls start(blocks, first_matrix) for a block on every tile of every matrix, as often as the largest grid makes
/// necessary.
template <int kRows, int kColumns, typename Start>
void launch_tiles(const Gemm& gemm, Start start) {
  const int64_t tiles =
      gemm.symmetric ? tile_count<true, kRows, kColumns>(gemm.out) : tile_count<false, kRows, kColumns>(gemm.out);
  const int64_t most = std::numeric_limits<int32_t>::max() / tiles;
  for (int64_t first = 0; first < gemm.count; first += most) {
    start(unsigned(std::min(most, gemm.count - first) * tiles), first);
  }
}

}  // namespace root_optimizer::cuda
