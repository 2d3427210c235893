#pragma once

// Products on tensor cores by mma.sync: elements of 16 bits, sums in float32, on any device since sm_80.
//
// A block computes a tile, each of its warps a quarter of it. The depth comes in slices. The operands' slices pass
// through a ring of stages in shared memory: while one stage is multiplied, copies fill the others. A slice keeps the
// order in which its matrix lies in memory, whichever dimension is the depth; ldmatrix transposes it on the way into
// registers.

#include "gemm_result.cuh"
#include "tile.cuh"

namespace root_optimizer::cuda {

/// A square tile of a product, the depth of its slices and the number of its stages. Four warps compute it.
template <int kSide_, int kDepth_, int kStages_>
struct TensorTile {
  static constexpr int kSide = kSide_;
  static constexpr int kDepth = kDepth_;
  static constexpr int kStages = kStages_;
  static constexpr int kThreads = 128;
  static constexpr int kWarp = kSide / 2;  // the side of what a warp computes
  static constexpr int kStageChunks = 2 * kSide * kDepth / 8;
  /// The stages, which later make room for two squares of the tile's size.
  static constexpr int kSharedBytes = 16 * std::max(kStages * kStageChunks, 2 * kSide * kSide / 8);
  static constexpr int kBlocks = kSide == 64 ? 4 : 2;  // that fit into a multiprocessor's registers
};

/// A thread's share in copying an operand's slices, one after another. The outer dimension is the one that is not the
/// depth: the product's rows for a, its columns for b. Past the end of the outer dimension the matrix's last elements
/// are copied, because what they make is not stored. Past the end of the depth there must be zeros.
template <typename Element, int kOuter, int kDepth, int kThreads, bool kDepthAlongRows>
class OperandCopy {
 public:
  /// Begins with the slice of number `first`.
  __device__ OperandCopy(const StoredMatrices& matrices, int64_t matrix, int64_t outer, int64_t first) {
    const int row = threadIdx.x / kChunks;
    const int chunk = threadIdx.x % kChunks;
    const Element* data = static_cast<const Element*>(matrices.data) + matrix * matrices.stride;
    stride_ = kDepthAlongRows ? kDepth : kDepth * matrices.pitch;
    data += first * stride_;
    for (int pass = 0; pass < kPasses; ++pass) {
      const int tile_row = row + pass * kRowsAtOnce;
      from_[pass] =
          data + (kDepthAlongRows ? min(outer + tile_row, matrices.rows - 1) * matrices.pitch + chunk * 8
                                  : tile_row * matrices.pitch + min(outer + chunk * 8, matrices.columns - 1) / 8 * 8);
    }
    slot_ = swizzled<kChunks>(row, chunk);
    depth_ = kDepthAlongRows ? chunk * 8 : row;
  }

  /// Copies the next slice, of which `depth` elements exist.
  __device__ void next(Chunk<Element>* stage, int depth) {
    for (int pass = 0; pass < kPasses; ++pass) {
      copy_async_16(&stage[slot_ + pass * kRowsAtOnce * kChunks], from_[pass],
                    depth_ + (kDepthAlongRows ? 0 : pass * kRowsAtOnce) < depth);
      from_[pass] += stride_;
    }
  }

 private:
  static constexpr int kRows = kDepthAlongRows ? kOuter : kDepth;
  static constexpr int kChunks = (kDepthAlongRows ? kDepth : kOuter) / 8;
  static constexpr int kRowsAtOnce = kThreads / kChunks;
  static constexpr int kPasses = kRows / kRowsAtOnce;
  static_assert(kRowsAtOnce % 8 == 0, "so that each pass finds its slots where the first one does, that much further");

  const Element* from_[kPasses];  // one for each pass: the compiler would compute distances anew in every slice
  int64_t stride_;
  int slot_;
  int depth_;
};

/// Loads four matrices of 8 × 8 elements, outer × depth, of an operand's slice. `outer` and `depth` are the place of
/// the matrix whose rows the lane names.
template <int kOuter, int kDepth, bool kDepthAlongRows, typename Element>
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], const Chunk<Element>* slice, int outer,
                                              int depth) {
  const int row = threadIdx.x % 8;
  if (kDepthAlongRows) {
    load_matrix_x4(fragment, &slice[swizzled<kDepth / 8>(outer + row, depth / 8)]);
  } else {
    load_matrix_x4_transposed(fragment, &slice[swizzled<kOuter / 8>(depth + row, outer / 8)]);
  }
}

template <typename Element, Contraction kContraction, bool kSymmetric, typename T>
__global__ void __launch_bounds__(T::kThreads, T::kBlocks)
    gemm_tensor(const __grid_constant__ Gemm gemm, const int64_t first_matrix) {
  constexpr bool kDepthAlongA = kContraction != Contraction::columns_by_columns;
  constexpr bool kDepthAlongB = kContraction == Contraction::rows_by_rows;
  constexpr int kDown = T::kWarp / 16;  // down and across: the warp's blocks of 16 × 8 elements
  constexpr int kAcross = T::kWarp / 8;
  using Square = ResultSquare<Element, T::kSide, T::kThreads>;

  const Tile at = tile_of_block<kSymmetric, T::kSide, T::kSide>(gemm.out, first_matrix);
  const int warp = threadIdx.x / 32;
  const int warp_row = warp / 2 * T::kWarp;
  const int warp_column = warp % 2 * T::kWarp;
  const int lane = threadIdx.x % 32;
  Chunk<Element>* shared = dynamic_shared<Chunk<Element>>();

  const int64_t depth = kDepthAlongA ? gemm.a.columns : gemm.a.rows;
  const SliceRange own = slices_of_part<T::kDepth>(gemm, depth);
  const int slices = own.count;
  const int last_depth = int(min(depth - int64_t(own.first + slices - 1) * T::kDepth, int64_t(T::kDepth)));
  OperandCopy<Element, T::kSide, T::kDepth, T::kThreads, kDepthAlongA> copy_a(gemm.a, at.matrix, at.row, own.first);
  OperandCopy<Element, T::kSide, T::kDepth, T::kThreads, kDepthAlongB> copy_b(gemm.b, at.matrix, at.column, own.first);
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      Chunk<Element>* stage = shared + slice % T::kStages * T::kStageChunks;
      const int present = slice == slices - 1 ? last_depth : T::kDepth;
      copy_a.next(stage, present);
      copy_b.next(stage + T::kSide * T::kDepth / 8, present);
    }
    commit_copies();  // an empty group counts as well
  };
  for (int slice = 0; slice < T::kStages - 1; ++slice) fetch(slice);

  const Square result(at.matrix, at.row, at.column, threadIdx.x, 1, shared);
  result.template prefetch<kSymmetric>(gemm);
  float sum[kDown][kAcross][4] = {};
#pragma unroll 1  // unrolled twice, the loop would need more registers than there are
  for (int slice = 0; slice < slices; ++slice) {
    // After the barrier all copies of this slice have landed, and nobody still reads the stage of the slice before,
    // which the next copies fill.
    wait_copies<T::kStages - 2>();
    __syncthreads();
    fetch(slice + T::kStages - 1);

    const Chunk<Element>* a = shared + slice % T::kStages * T::kStageChunks;
    const Chunk<Element>* b = a + T::kSide * T::kDepth / 8;
    // mma takes a's quarters outer first, then depth. It takes b's quarters depth first, then outer, two at a time.
    const int first = lane / 8 % 2 * 8;
    const int second = lane / 16 * 8;
    for (int k = 0; k < T::kDepth; k += 16) {
      uint32_t columns[kAcross / 2][4];
      for (int j = 0; j < kAcross / 2; ++j)
        load_fragment<T::kSide, T::kDepth, kDepthAlongB>(columns[j], b, warp_column + j * 16 + second, k + first);
      for (int i = 0; i < kDown; ++i) {
        uint32_t rows[4];
        load_fragment<T::kSide, T::kDepth, kDepthAlongA>(rows, a, warp_row + i * 16 + first, k + second);
        for (int j = 0; j < kAcross; ++j) {
          const uint32_t(&pair)[4] = columns[j / 2];
          multiply_accumulate(sum[i][j], rows, {pair[j % 2 * 2], pair[j % 2 * 2 + 1]}, Element());
        }
      }
    }
  }

  const auto sums = [&](auto use) {
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          use(warp_row + i * 16 + half * 8 + lane / 4, warp_column + j * 8 + lane % 4 * 2, sum[i][j][half * 2],
              sum[i][j][half * 2 + 1]);
        }
      }
    }
  };
  if constexpr (kSymmetric) {
    if (gemm.parts != nullptr) return result.store_part(gemm, int(blockIdx.y), sums);
  }
  __syncthreads();  // the stages make room for the result
  result.template finish<kSymmetric>(gemm, sums);
}

template <typename Element, Contraction kContraction, bool kSymmetric, typename T>
void launch_gemm_tensor(const Gemm& gemm, cudaStream_t stream) {
  const auto kernel = gemm_tensor<Element, kContraction, kSymmetric, T>;
  // The attribute belongs to the current device, so it cannot be set once and for all.
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes),
          "cudaFuncSetAttribute");
  launch_tiles<T::kSide, T::kSide>(gemm, [&](unsigned blocks, int64_t first_matrix) {
    launch("gemm", kernel, dim3(blocks, part_count(gemm)), T::kThreads, T::kSharedBytes, stream, gemm, first_matrix);
  });
}

}  // namespace root_optimizer::cuda
