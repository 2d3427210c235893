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

/// A matrix's tiles cover its padding too, which must come out as zeros.
__host__ __device__ inline unsigned tile_count(const StoredMatrices& out, bool symmetric, int side) {
  const unsigned across = tiles_along(out.pitch, side);
  return symmetric ? across * (across + 1) / 2 : tiles_along(out.rows, side) * across;
}

template <bool kSymmetric>
__device__ Tile tile_of_block(const StoredMatrices& out, int64_t first_matrix, int side) {
  const unsigned count = tile_count(out, kSymmetric, side);
  const unsigned across = tiles_along(out.pitch, side);
  const unsigned down = kSymmetric ? across : tiles_along(out.rows, side);
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
    while (index >= height * first + height * (height + 1) / 2) {
      index -= height * first + height * (height + 1) / 2;
      first += kGroup;
      height = min(kGroup, down - first);
    }
    if (index < height * first) {
      row = first + index % height;
      column = index / height;
    } else {
      index -= height * first;
      column = first;
      for (; index >= height; --height, ++column) index -= height;
      row = column + index;
    }
  }
  return {.matrix = first_matrix + blockIdx.x / count, .row = int64_t(row) * side, .column = int64_t(column) * side};
}

/// Launches a block for every tile of every matrix, in as many launches as the largest grid makes necessary.
inline void launch_tiles(void (*kernel)(Gemm, int64_t), int side, int threads, size_t shared, const Gemm& gemm,
                         cudaStream_t stream) {
  const int64_t tiles = tile_count(gemm.out, gemm.symmetric, side);
  const int64_t most = std::numeric_limits<int32_t>::max() / tiles;
  for (int64_t first = 0; first < gemm.count; first += most) {
    const dim3 grid(unsigned(std::min(most, gemm.count - first) * tiles));
    launch("gemm", kernel, grid, dim3(unsigned(threads)), shared, stream, gemm, first);
  }
}

}  // namespace root_optimizer::cuda
