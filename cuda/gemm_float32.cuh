#pragma once

// Products of float32 matrices, without tensor cores.
//
// A block computes a tile of 64 × 64 elements, each thread 4 × 4 of them. The operands' tiles lie in shared memory
// depth by depth, so that a thread reads four elements of either at once. A thread holds the next tiles' elements while
// it multiplies the present ones.

#include "gemm.cuh"
#include "launch.cuh"
#include "tile.cuh"

namespace root_optimizer::cuda {

constexpr int kFloat32Tile = 64;
constexpr int kFloat32Depth = 16;
constexpr int kFloat32Threads = 256;

/// The slices that one sum runs over before it is added to the total. A single sum over a great depth would round each
/// of its terms by half a unit of all that came before.
constexpr int kSlicesOfASum = 64;

/// A tile's elements of one depth. The padding spreads a column of elements over the banks.
struct alignas(16) OuterElements {
  float elements[kFloat32Tile + 4];
};

/// A thread's share in loading an operand's tiles, one depth after another. Elements outside the matrix are zeros.
template <bool kDepthAlongRows>
class Float32Load {
 public:
  __device__ Float32Load(const StoredMatrices& matrices, int64_t matrix, int64_t outer) : pitch_(matrices.pitch) {
    const int64_t row = (kDepthAlongRows ? outer : 0) + threadIdx.x / kQuads;
    const int64_t column = (kDepthAlongRows ? 0 : outer) + threadIdx.x % kQuads * 4;
    from_ = static_cast<const float*>(matrices.data) + matrix * matrices.stride + row * pitch_ + column;
    rows_left_ = matrices.rows - row;
    columns_left_ = matrices.columns - column;
  }

  __device__ float4 next() {
    float4 quad = {0, 0, 0, 0};
    if (rows_left_ > 0 && columns_left_ > 0) quad = *reinterpret_cast<const float4*>(from_);
    from_ += kDepthAlongRows ? kFloat32Depth : kFloat32Depth * pitch_;
    (kDepthAlongRows ? columns_left_ : rows_left_) -= kFloat32Depth;
    return quad;
  }

  __device__ static void put(OuterElements* tile, const float4& quad) {
    const int row = threadIdx.x / kQuads;
    const int column = threadIdx.x % kQuads * 4;
    if (kDepthAlongRows) {
      tile[column].elements[row] = quad.x;
      tile[column + 1].elements[row] = quad.y;
      tile[column + 2].elements[row] = quad.z;
      tile[column + 3].elements[row] = quad.w;
    } else {
      *reinterpret_cast<float4*>(&tile[row].elements[column]) = quad;
    }
  }

 private:
  static constexpr int kQuads = (kDepthAlongRows ? kFloat32Depth : kFloat32Tile) / 4;

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

/// Adds a sum to the total and begins a new one.
__device__ __forceinline__ void move_sum(float (&sum)[4][4], float (&total)[4][4]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      total[i][j] += sum[i][j];
      sum[i][j] = 0;
    }
  }
}

template <Contraction kContraction, bool kSymmetric>
__global__ void __launch_bounds__(kFloat32Threads)
    gemm_float32(const __grid_constant__ Gemm gemm, const int64_t first_matrix) {
  constexpr bool kDepthAlongA = kContraction != Contraction::columns_by_columns;
  constexpr bool kDepthAlongB = kContraction == Contraction::rows_by_rows;
  SHARED_ARRAY(OuterElements, tiles, 2 * 2 * kFloat32Depth);

  const Tile at = tile_of_block<kSymmetric, kFloat32Tile, kFloat32Tile>(gemm.out, first_matrix);
  const int row0 = threadIdx.x / 16 * 4;
  const int column0 = threadIdx.x % 16 * 4;

  Float32Load<kDepthAlongA> load_a(gemm.a, at.matrix, at.row);
  Float32Load<kDepthAlongB> load_b(gemm.b, at.matrix, at.column);
  float4 next_a = load_a.next();
  float4 next_b = load_b.next();

  const int slices = tiles_along(kDepthAlongA ? gemm.a.columns : gemm.a.rows, kFloat32Depth);
  float total[4][4] = {};
  float sum[4][4] = {};
  for (int slice = 0; slice < slices; ++slice) {
    if (slice % kSlicesOfASum == 0) move_sum(sum, total);
    // Two tiles of each operand take turns, so that one barrier a slice is enough: before a thread fills a tile, all
    // threads have finished with it.
    OuterElements* a = tiles + slice % 2 * 2 * kFloat32Depth;
    OuterElements* b = a + kFloat32Depth;
    load_a.put(a, next_a);
    load_b.put(b, next_b);
    __syncthreads();
    next_a = load_a.next();
    next_b = load_b.next();
    for (int depth = 0; depth < kFloat32Depth; ++depth) {
      const float4 down = *reinterpret_cast<const float4*>(&a[depth].elements[row0]);
      const float4 across = *reinterpret_cast<const float4*>(&b[depth].elements[column0]);
      const float rows[4] = {down.x, down.y, down.z, down.w};
      const float columns[4] = {across.x, across.y, across.z, across.w};
      for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], columns[j], sum[i][j]);
      }
    }
  }

  move_sum(sum, total);

  const int64_t row = at.row + row0;
  const int64_t column = at.column + column0;
  if (kSymmetric && row < column) return;  // the thread on the other side of the diagonal stores these
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) total[i][j] *= gemm.alpha;
    for (const Addend& addend : gemm.addends) {
      const StoredMatrices& c = addend.matrices;
      if (addend.factor == 0 || row + i >= c.rows || column >= c.columns) continue;
      const float4 quad = *reinterpret_cast<const float4*>(static_cast<const float*>(c.data) + at.matrix * c.stride +
                                                           (row + i) * c.pitch + column);
      const float terms[4] = {quad.x, quad.y, quad.z, quad.w};
      for (int j = 0; j < 4; ++j) total[i][j] = fmaf(addend.factor, terms[j], total[i][j]);
    }
  }
  if (kSymmetric && row == column) {
    for (int i = 0; i < 4; ++i) {
      for (int j = i + 1; j < 4; ++j) total[i][j] = total[j][i];
    }
  }
  for (int i = 0; i < 4; ++i) {
    store_quad(gemm.out, at.matrix, row + i, column, {total[i][0], total[i][1], total[i][2], total[i][3]});
    if (kSymmetric && row > column)
      store_quad(gemm.out, at.matrix, column + i, row, {total[0][i], total[1][i], total[2][i], total[3][i]});
  }
}

template <Contraction kContraction, bool kSymmetric>
void launch_gemm_float32(const Gemm& gemm, cudaStream_t stream) {
  launch_tiles<kFloat32Tile, kFloat32Tile>(gemm, [&](unsigned blocks, int64_t first_matrix) {
    launch("gemm", gemm_float32<kContraction, kSymmetric>, blocks, kFloat32Threads, 0, stream, gemm, first_matrix);
  });
}

}  // namespace root_optimizer::cuda
