#pragma once

// Products of float32 matrices, without tensor cores.
//
// A block computes a square tile, each thread one, or two by two, squares of 4 × 4 elements of it, which are 64
// elements apart. The operands' tiles lie in shared memory depth by depth, so that a thread reads four elements of
// either at once and lanes meet different banks. A thread holds the next tiles' elements while it multiplies the
// present ones.

#include "gemm.cuh"
#include "launch.cuh"
#include "tile.cuh"

namespace root_optimizer::cuda {

template <int kSide_>
struct Float32Tile {
  static constexpr int kSide = kSide_;
  static constexpr int kDepth = 16;
  static constexpr int kThreads = 256;
  static constexpr int kSquares = kSide / 64;          // of a thread, down and across
  static constexpr int kBlocks = kSide == 64 ? 2 : 1;  // that fit into a multiprocessor's registers
};

/// The slices that one sum runs over before it is added to the total. A single sum over a great depth would round each
/// of its terms by half a unit of all that came before.
constexpr int kSlicesOfASum = 64;

/// A tile's elements of one depth. The padding spreads a column of elements over the banks.
template <int kSide>
struct alignas(16) OuterElements {
  float elements[kSide + 4];
};

/// A thread's share in loading an operand's tiles, one depth after another. Elements outside the matrix are zeros.
template <typename T, bool kDepthAlongRows>
class Float32Load {
 public:
  static constexpr int kQuads = T::kSquares;  // that a thread loads of each tile

  __device__ Float32Load(const StoredMatrices& matrices, int64_t matrix, int64_t outer) : pitch_(matrices.pitch) {
    const int64_t row = (kDepthAlongRows ? outer : 0) + threadIdx.x / kQuadsOfARow;
    const int64_t column = (kDepthAlongRows ? 0 : outer) + threadIdx.x % kQuadsOfARow * 4;
    from_ = static_cast<const float*>(matrices.data) + matrix * matrices.stride + row * pitch_ + column;
    rows_left_ = matrices.rows - row;
    columns_left_ = matrices.columns - column;
  }

  __device__ void next(float4 (&quads)[kQuads]) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      quads[i] = {0, 0, 0, 0};
      if (rows_left_ > i * kRowsAtOnce && columns_left_ > 0) {
        quads[i] = *reinterpret_cast<const float4*>(from_ + i * kRowsAtOnce * pitch_);
      }
    }
    from_ += kDepthAlongRows ? T::kDepth : T::kDepth * pitch_;
    (kDepthAlongRows ? columns_left_ : rows_left_) -= T::kDepth;
  }

  __device__ static void put(OuterElements<T::kSide>* tile, const float4 (&quads)[kQuads]) {
    const int column = threadIdx.x % kQuadsOfARow * 4;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int row = threadIdx.x / kQuadsOfARow + i * kRowsAtOnce;
      if (kDepthAlongRows) {
        tile[column].elements[row] = quads[i].x;
        tile[column + 1].elements[row] = quads[i].y;
        tile[column + 2].elements[row] = quads[i].z;
        tile[column + 3].elements[row] = quads[i].w;
      } else {
        *reinterpret_cast<float4*>(&tile[row].elements[column]) = quads[i];
      }
    }
  }

 private:
  static constexpr int kQuadsOfARow = (kDepthAlongRows ? T::kDepth : T::kSide) / 4;
  static constexpr int kRowsAtOnce = T::kThreads / kQuadsOfARow;

  const float* from_;
  int64_t pitch_;
  int64_t rows_left_;
  int64_t columns_left_;
};

/// Stores four elements of `out`, with zeros where they are padding.
__device__ __forceinline__ void store_quad(const StoredMatrices& out, int64_t matrix, int64_t row, int64_t column,
                                           const float4& quad) {
  if (row >= out.rows || column >= out.pitch) return;
  static_cast<float4*>(out.data)[(matrix * out.stride + row * out.pitch + column) / 4] = {
      column < out.columns ? quad.x : 0, column + 1 < out.columns ? quad.y : 0, column + 2 < out.columns ? quad.z : 0,
      column + 3 < out.columns ? quad.w : 0};
}

/// Adds sums to the totals and begins new ones.
template <int kSize>
__device__ __forceinline__ void move_sums(float (&sum)[kSize][kSize], float (&total)[kSize][kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      total[i][j] += sum[i][j];
      sum[i][j] = 0;
    }
  }
}

/// Stores α·sum + the addends for a square of 4 × 4 elements at a row and column of a matrix. Of a symmetric result
/// what lies on and below the diagonal is stored twice.
template <bool kSymmetric>
__device__ __forceinline__ void finish_square(const Gemm& gemm, int64_t matrix, int64_t row, int64_t column,
                                              float (&square)[4][4]) {
  if (kSymmetric && row < column) return;  // the thread on the other side of the diagonal stores these
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) square[i][j] *= gemm.alpha;
    for (const Addend& addend : gemm.addends) {
      const StoredMatrices& c = addend.matrices;
      if (addend.factor == 0 || row + i >= c.rows || column >= c.columns) continue;
      const float4 quad = *reinterpret_cast<const float4*>(static_cast<const float*>(c.data) + matrix * c.stride +
                                                           (row + i) * c.pitch + column);
      const float terms[4] = {quad.x, quad.y, quad.z, quad.w};
      for (int j = 0; j < 4; ++j) square[i][j] = fmaf(addend.factor, terms[j], square[i][j]);
    }
  }
  if (kSymmetric && row == column) {
    for (int i = 0; i < 4; ++i) {
      for (int j = i + 1; j < 4; ++j) square[i][j] = square[j][i];
    }
  }
  for (int i = 0; i < 4; ++i) {
    store_quad(gemm.out, matrix, row + i, column, {square[i][0], square[i][1], square[i][2], square[i][3]});
    if (kSymmetric && row > column) {
      store_quad(gemm.out, matrix, column + i, row, {square[0][i], square[1][i], square[2][i], square[3][i]});
    }
  }
}

template <Contraction kContraction, bool kSymmetric, typename T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    gemm_float32(const __grid_constant__ Gemm gemm, const int64_t first_matrix) {
  constexpr bool kDepthAlongA = kContraction != Contraction::columns_by_columns;
  constexpr bool kDepthAlongB = kContraction == Contraction::rows_by_rows;
  constexpr int kSize = 4 * T::kSquares;
  using Outer = OuterElements<T::kSide>;
  SHARED_ARRAY(Outer, tiles, 2 * 2 * T::kDepth);

  const Tile at = tile_of_block<kSymmetric, T::kSide, T::kSide>(gemm.out, first_matrix);
  const int row0 = threadIdx.x / 16 * 4;
  const int column0 = threadIdx.x % 16 * 4;

  Float32Load<T, kDepthAlongA> load_a(gemm.a, at.matrix, at.row);
  Float32Load<T, kDepthAlongB> load_b(gemm.b, at.matrix, at.column);
  float4 next_a[T::kSquares];
  float4 next_b[T::kSquares];
  load_a.next(next_a);
  load_b.next(next_b);

  const int slices = tiles_along(kDepthAlongA ? gemm.a.columns : gemm.a.rows, T::kDepth);
  float total[kSize][kSize] = {};
  float sum[kSize][kSize] = {};
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    if (slice % kSlicesOfASum == 0) move_sums(sum, total);
    // Two tiles of each operand take turns, so that one barrier a slice is enough: before a thread fills a tile, all
    // threads have finished with it.
    Outer* a = tiles + slice % 2 * 2 * T::kDepth;
    Outer* b = a + T::kDepth;
    load_a.put(a, next_a);
    load_b.put(b, next_b);
    __syncthreads();
    load_a.next(next_a);
    load_b.next(next_b);
#pragma unroll
    for (int depth = 0; depth < T::kDepth; ++depth) {
      float rows[kSize];
      float columns[kSize];
#pragma unroll
      for (int square = 0; square < T::kSquares; ++square) {
        const float4 down = *reinterpret_cast<const float4*>(&a[depth].elements[row0 + square * 64]);
        const float4 across = *reinterpret_cast<const float4*>(&b[depth].elements[column0 + square * 64]);
        memcpy(rows + square * 4, &down, sizeof down);
        memcpy(columns + square * 4, &across, sizeof across);
      }
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) sum[i][j] = fmaf(rows[i], columns[j], sum[i][j]);
      }
    }
  }
  move_sums(sum, total);

#pragma unroll
  for (int down = 0; down < T::kSquares; ++down) {
#pragma unroll
    for (int across = 0; across < T::kSquares; ++across) {
      float square[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) square[i][j] = total[down * 4 + i][across * 4 + j];
      }
      finish_square<kSymmetric>(gemm, at.matrix, at.row + row0 + down * 64, at.column + column0 + across * 64, square);
    }
  }
}

template <Contraction kContraction, bool kSymmetric, typename T>
void launch_gemm_float32(const Gemm& gemm, cudaStream_t stream) {
  launch_tiles<T::kSide, T::kSide>(gemm, [&](unsigned blocks, int64_t first_matrix) {
    launch("gemm", gemm_float32<kContraction, kSymmetric, T>, blocks, T::kThreads, 0, stream, gemm, first_matrix);
  });
}

}  // namespace root_optimizer::cuda
