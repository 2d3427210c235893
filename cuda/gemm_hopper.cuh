#pragma once

// Products on Hopper's tensor cores by wgmma: elements of 16 bits, sums in float32, on sm_90 alone.
//
// A block computes a tile of kRows × 128 elements. One thread asks the copy engine for the operands' slices, which pass
// through a ring of stages in shared memory. Two warpgroups multiply: each has half of the tile's rows. A full stage is
// announced to them by one barrier, a stage that they have read is given back by another. The copy engine fills what
// lies outside a matrix with zeros.
//
// A slice keeps the order in which its matrix lies in memory, in boxes of 64 elements (128 bytes) across. The copy
// engine swizzles each box as wgmma expects it.

#include "gemm_result.cuh"
#include "tensor_map.h"
#include "tile.cuh"

namespace root_optimizer::cuda {

template <int kRows_, int kStages_>
struct HopperTile {
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = 128;
  static constexpr int kDepth = 64;
  static constexpr int kStages = kStages_;
  static constexpr int kMultipliers = 256;            // threads
  static constexpr int kThreads = kMultipliers + 32;  // and a warp for the copies
  static constexpr int kDown = kRows / 128;           // the blocks of 64 rows that a warpgroup computes
  static constexpr int kSquareThreads = kMultipliers / kDown;
  static constexpr int kBlocks = kRows == 256 ? 1 : 2;  // in a multiprocessor
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;

  static_assert(kSharedBytes >= 2 * kRows * kColumns * 2, "the stages make room for two squares of each square's size");
};

/// An operand's slices in shared memory and how wgmma finds its way in them. The outer dimension is the one that is not
/// the depth.
template <int kOuter, bool kDepthAlongRows>
struct HopperOperand {
  static constexpr int kBoxBytes = 64 * 64 * 2;
  static constexpr int kRowBytes = 128;
  /// How far apart blocks of 64 outer elements, and 16 elements of depth, are.
  static constexpr int kOuterBlock = kBoxBytes;
  static constexpr int kDepthStep = kDepthAlongRows ? 32 : 16 * kRowBytes;

  /// Asks for the slice that begins at `depth`.
  static __device__ void copy(char* stage, const TensorMap& map, int64_t outer, int depth, int64_t matrix,
                              uint64_t* full) {
    for (int block = 0; block < kOuter; block += 64) {
      const int across = kDepthAlongRows ? depth : int(outer) + block;
      const int down = kDepthAlongRows ? int(outer) + block : depth;
      copy_box(stage + block / 64 * kBoxBytes, map, across, down, int(matrix), full);
    }
  }

  /// Describes the matrix at an address to wgmma. Rows of 128 bytes lie in groups of eight, 1024 bytes apart. Where the
  /// depth goes down, blocks of 64 outer elements are a box apart.
  static __device__ uint64_t describe(const char* address) {
    return describe_swizzled(address, kDepthAlongRows ? 16 : kBoxBytes, 8 * kRowBytes);
  }
};

template <typename Element, Contraction kContraction, bool kSymmetric, typename T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    gemm_hopper(const __grid_constant__ Gemm gemm, const __grid_constant__ TensorMap map_a,
                const __grid_constant__ TensorMap map_b, const int64_t first_matrix) {
#ifdef ROOT_OPTIMIZER_HAS_WGMMA
  constexpr bool kDepthAlongA = kContraction != Contraction::columns_by_columns;
  constexpr bool kDepthAlongB = kContraction == Contraction::rows_by_rows;
  using OperandA = HopperOperand<T::kRows, kDepthAlongA>;
  using OperandB = HopperOperand<T::kColumns, kDepthAlongB>;
  using Square = ResultSquare<Element, 128, T::kSquareThreads>;
  constexpr int kBytesOfA = T::kRows * T::kDepth * 2;

  SHARED_ARRAY(uint64_t, full, T::kStages);
  SHARED_ARRAY(uint64_t, empty, T::kStages);
  char* shared = dynamic_shared<char>();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      init_barrier(&full[stage], 1);
      init_barrier(&empty[stage], T::kMultipliers / 32);
    }
    publish_barriers();
  }
  __syncthreads();

  const Tile at = tile_of_block<kSymmetric, T::kRows, T::kColumns>(gemm.out, first_matrix);
  const SliceRange depth = slices_of_part<T::kDepth>(gemm, kDepthAlongA ? gemm.a.columns : gemm.a.rows);
  const int slices = depth.count;
  // On the diagonal of a matrix's product with itself the slices of a have those of b.
  const bool one_operand =
      kSymmetric && gemm.a.data == gemm.b.data && at.column >= at.row && at.column < at.row + T::kRows;

  if (threadIdx.x >= T::kMultipliers) {
    if (threadIdx.x > T::kMultipliers) return;
    for (int slice = 0; slice < slices; ++slice) {
      const int stage = slice % T::kStages;
      char* a = shared + stage * T::kStageBytes;
      if (slice >= T::kStages) wait_barrier(&empty[stage], (slice / T::kStages - 1) % 2);
      expect_bytes(&full[stage], one_operand ? kBytesOfA : T::kStageBytes);
      OperandA::copy(a, map_a, at.row, (depth.first + slice) * T::kDepth, at.matrix, &full[stage]);
      if (one_operand) continue;
      OperandB::copy(a + kBytesOfA, map_b, at.column, (depth.first + slice) * T::kDepth, at.matrix, &full[stage]);
    }
    return;
  }

  const int lane = threadIdx.x % 32;
  const int group = threadIdx.x / 128;
  const int square = threadIdx.x / T::kSquareThreads;
  const Square result(at.matrix, at.row + square * 128, at.column, threadIdx.x % T::kSquareThreads, 1 + square,
                      reinterpret_cast<Chunk<Element>*>(shared) + square * Square::kSharedChunks);
  result.template prefetch<kSymmetric>(gemm);
  const int place_of_b = one_operand ? int(at.column - at.row) / 64 * OperandA::kOuterBlock : kBytesOfA;
  float sum[T::kDown][64] = {};
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    const int stage = slice % T::kStages;
    wait_barrier(&full[stage], slice / T::kStages % 2);
    const char* a = shared + stage * T::kStageBytes + group * T::kDown * OperandA::kOuterBlock;
    const char* b = shared + stage * T::kStageBytes + place_of_b;
    begin_products();
#pragma unroll
    for (int step = 0; step < T::kDepth / 16; ++step) {
#pragma unroll
      for (int i = 0; i < T::kDown; ++i) {
        multiply_warpgroup<!kDepthAlongA, !kDepthAlongB>(
            sum[i], OperandA::describe(a + i * OperandA::kOuterBlock + step * OperandA::kDepthStep),
            OperandB::describe(b + step * OperandB::kDepthStep), Element());
      }
    }
    commit_products();
    // The products of the slice before have ended, so that its stage can be filled again.
    wait_products<1>();
    if (slice > 0 && lane == 0) arrive_at_barrier(&empty[(slice - 1) % T::kStages]);
  }
  wait_products<0>();
#pragma unroll
  for (int i = 0; i < T::kDown; ++i) settle_sums(sum[i]);

  const int first_row = (T::kDown == 1 ? group * 64 : 0) + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const auto sums = [&](auto use) {
#pragma unroll
    for (int i = 0; i < T::kDown; ++i) {
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          use(first_row + i * 64 + half * 8, j * 8 + lane % 4 * 2, sum[i][j * 4 + half * 2],
              sum[i][j * 4 + half * 2 + 1]);
        }
      }
    }
  };
  if constexpr (kSymmetric) {
    if (gemm.parts != nullptr) return result.store_part(gemm, int(blockIdx.y), sums);
  }
  named_barrier<T::kMultipliers>(1);  // both warpgroups have read the stages, which make room for the result
  result.template finish<kSymmetric>(gemm, sums);
#else
  __trap();  // this build has no code for sm_90a, and the result would be whatever the memory held
#endif
}

template <typename Element, Contraction kContraction, bool kSymmetric, typename T>
void launch_gemm_hopper(const Gemm& gemm, cudaStream_t stream) {
  const auto kernel = gemm_hopper<Element, kContraction, kSymmetric, T>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes),
          "cudaFuncSetAttribute");
  const TensorMap map_a = tensor_map(gemm.a, gemm.count);
  const TensorMap map_b = tensor_map(gemm.b, gemm.count);
  launch_tiles<T::kRows, T::kColumns>(gemm, [&](unsigned blocks, int64_t first_matrix) {
    launch("gemm", kernel, dim3(blocks, part_count(gemm)), T::kThreads, T::kSharedBytes, stream, gemm, map_a, map_b,
           first_matrix);
  });
}

}  // namespace root_optimizer::cuda
