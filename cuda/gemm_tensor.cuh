#pragma once

// Products on tensor cores: elements of 16 bits, sums in float32, on any device since sm_80.
//
// A block computes a tile of kTile × kTile elements, each warp kTile / 2 × 32 of it. The depth comes in slices of
// kStageDepth. The operands' slices pass through a ring of stages in shared memory: while one stage is multiplied,
// copies fill the others. A slice keeps the order in which its matrix lies in memory, whichever dimension is the depth;
// ldmatrix transposes it on the way into registers.

#include "elements.cuh"
#include "gemm.cuh"
#include "launch.cuh"
#include "tile.cuh"

namespace root_optimizer::cuda {

constexpr int kStages = 4;
constexpr int kStageDepth = 32;

template <typename Element>
struct alignas(4) Pair {
  Element x, y;
};

template <int kTile>
constexpr int kTensorThreads = 2 * kTile;
template <int kTile>
constexpr size_t kTensorShared = kStages * 2 * kTile * kStageDepth * 2;

/// The place of a chunk in a tile of kChunks chunks a row. Eight lanes that take one column's chunks of eight
/// successive rows meet different banks.
template <int kChunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * kChunks + (chunk ^ (kChunks == 4 ? row >> 1 & 3 : row & 7));
}

/// A thread's share in copying an operand's slices, one after another. The outer dimension is the one that is not the
/// depth: the product's rows for a, its columns for b. Past the end of the outer dimension the matrix's last elements
/// are copied, because what they make is not stored. Past the end of the depth there must be zeros.
template <typename Element, int kTile, bool kDepthAlongRows>
class OperandCopy {
 public:
  __device__ OperandCopy(const StoredMatrices& matrices, int64_t matrix, int64_t outer) {
    const int row = threadIdx.x / kChunks;
    const int chunk = threadIdx.x % kChunks;
    const Element* data = static_cast<const Element*>(matrices.data) + matrix * matrices.stride;
    for (int pass = 0; pass < kPasses; ++pass) {
      const int tile_row = row + pass * kRowsAtOnce;
      from_[pass] =
          data + (kDepthAlongRows ? min(outer + tile_row, matrices.rows - 1) * matrices.pitch + chunk * 8
                                  : tile_row * matrices.pitch + min(outer + chunk * 8, matrices.columns - 1) / 8 * 8);
    }
    stride_ = kDepthAlongRows ? kStageDepth : kStageDepth * matrices.pitch;
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
  static constexpr int kRows = kDepthAlongRows ? kTile : kStageDepth;
  static constexpr int kChunks = (kDepthAlongRows ? kStageDepth : kTile) / 8;
  static constexpr int kRowsAtOnce = kTensorThreads<kTile> / kChunks;
  static constexpr int kPasses = kRows / kRowsAtOnce;
  static_assert(kRowsAtOnce % 8 == 0, "so that each pass finds its slots where the first one does, that much further");

  const Element* from_[kPasses];  // one for each pass: the compiler would compute distances anew in every slice
  int64_t stride_;
  int slot_;
  int depth_;
};

/// Loads four matrices of 8 × 8 elements, outer × depth, of an operand's tile. `outer` and `depth` are the place of the
/// matrix whose rows the lane names.
template <int kTile, bool kDepthAlongRows, typename Element>
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], const Chunk<Element>* tile, int outer,
                                              int depth) {
  const int row = threadIdx.x % 8;
  if (kDepthAlongRows) {
    load_matrix_x4(fragment, &tile[swizzled<kStageDepth / 8>(outer + row, depth / 8)]);
  } else {
    load_matrix_x4_transposed(fragment, &tile[swizzled<kTile / 8>(depth + row, outer / 8)]);
  }
}

/// The place of a chunk of the result. Lanes that take one of every eighth row meet different banks as well.
template <int kTile>
__device__ __forceinline__ int result_slot(int row, int chunk) {
  return swizzled<kTile / 8>(row, chunk ^ (row >> 3 & 7));
}

enum class Reading { straight, transposed, mirrored };

/// Stores the tile that waits in shared memory. `mirrored` takes what is above the diagonal from below.
template <Reading kReading, int kTile, typename Element>
__device__ void store_tile(const StoredMatrices& out, int64_t matrix, int64_t row0, int64_t column0,
                           const Chunk<Element>* tile) {
  constexpr int kChunks = kTile / 8;
  const auto element = [&](int row, int column) {
    return tile[result_slot<kTile>(row, column / 8)].elements[column % 8];
  };
  for (int index = threadIdx.x; index < kTile * kChunks; index += kTensorThreads<kTile>) {
    // Eight lanes store 128 bytes. Sixteen would meet in their banks when they read a column.
    const int row = index / 8 % kTile;
    const int column = (index / (8 * kTile) * 8 + index % 8) * 8;
    if (row0 + row >= out.rows || column0 + column >= out.pitch) continue;
    Chunk<Element> chunk;
    if (kReading == Reading::straight) {
      chunk = tile[result_slot<kTile>(row, column / 8)];
    } else {
      for (int i = 0; i < 8; ++i) {
        const bool swap = kReading == Reading::transposed || column + i > row;
        chunk.elements[i] = swap ? element(column + i, row) : element(row, column + i);
      }
    }
    if (column0 + column + 8 > out.columns) {
      for (int i = 0; i < 8; ++i) {
        if (column0 + column + i >= out.columns) chunk.elements[i] = Element(0.0f);
      }
    }
    static_cast<Chunk<Element>*>(out.data)[(matrix * out.stride + (row0 + row) * out.pitch + column0 + column) / 8] =
        chunk;
  }
}

template <typename Element, Contraction kContraction, bool kSymmetric, int kTile>
__global__ void __launch_bounds__(kTensorThreads<kTile>, 256 / kTile)
    gemm_tensor(const __grid_constant__ Gemm gemm, const int64_t first_matrix) {
  constexpr bool kDepthAlongA = kContraction != Contraction::columns_by_columns;
  constexpr bool kDepthAlongB = kContraction == Contraction::rows_by_rows;
  constexpr int kDown = kTile / 2 / 16;  // down and across: the warp's blocks of 16 × 8 elements
  constexpr int kAcross = 32 / 8;
  constexpr int kOperand = kTile * kStageDepth / 8;

  const Tile at = tile_of_block<kSymmetric>(gemm.out, first_matrix, kTile);
  const int warp_row = threadIdx.x / kTile * (kTile / 2);
  const int warp_column = threadIdx.x % kTile / 32 * 32;
  const int lane = threadIdx.x % 32;
  Chunk<Element>* shared = dynamic_shared<Chunk<Element>>();

  const int64_t depth = kDepthAlongA ? gemm.a.columns : gemm.a.rows;
  const int slices = tiles_along(depth, kStageDepth);
  const int last_depth = int(depth - int64_t(slices - 1) * kStageDepth);
  OperandCopy<Element, kTile, kDepthAlongA> copy_a(gemm.a, at.matrix, at.row);
  OperandCopy<Element, kTile, kDepthAlongB> copy_b(gemm.b, at.matrix, at.column);
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      Chunk<Element>* stage = shared + slice % kStages * 2 * kOperand;
      const int present = slice == slices - 1 ? last_depth : kStageDepth;
      copy_a.next(stage, present);
      copy_b.next(stage + kOperand, present);
    }
    commit_copies();  // an empty group counts as well
  };
  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);

  float sum[kDown][kAcross][4] = {};
#pragma unroll 1  // unrolled twice, the loop would need more registers than there are
  for (int slice = 0; slice < slices; ++slice) {
    // After the barrier all copies of this slice have landed, and nobody still reads the stage of the slice before,
    // which the next copies fill.
    wait_copies<kStages - 2>();
    __syncthreads();
    fetch(slice + kStages - 1);

    const Chunk<Element>* a = shared + slice % kStages * 2 * kOperand;
    const Chunk<Element>* b = a + kOperand;
    // mma takes a's quarters outer first, then depth. It takes b's quarters depth first, then outer, two at a time.
    const int first = lane / 8 % 2 * 8;
    const int second = lane / 16 * 8;
    for (int k = 0; k < kStageDepth; k += 16) {
      uint32_t columns[kAcross / 2][4];
      for (int j = 0; j < kAcross / 2; ++j)
        load_fragment<kTile, kDepthAlongB>(columns[j], b, warp_column + j * 16 + second, k + first);
      for (int i = 0; i < kDown; ++i) {
        uint32_t rows[4];
        load_fragment<kTile, kDepthAlongA>(rows, a, warp_row + i * 16 + first, k + second);
        for (int j = 0; j < kAcross; ++j) {
          const uint32_t(&pair)[4] = columns[j / 2];
          multiply_accumulate(sum[i][j], rows, {pair[j % 2 * 2], pair[j % 2 * 2 + 1]}, Element());
        }
      }
    }
  }

  __syncthreads();  // the stages make room for the result
  if (gemm.beta != 0) {
    const Element* c = static_cast<const Element*>(gemm.c.data) + at.matrix * gemm.c.stride;
    for (int index = threadIdx.x; index < kTile * kTile / 8; index += kTensorThreads<kTile>) {
      const int row = index / (kTile / 8);
      const int chunk = index % (kTile / 8);
      copy_async_16(&shared[result_slot<kTile>(row, chunk)], c + (at.row + row) * gemm.c.pitch + at.column + chunk * 8,
                    at.row + row < gemm.c.rows && at.column + chunk * 8 < gemm.c.columns);
    }
    commit_copies();
    wait_copies<0>();
    __syncthreads();
  }
  for (int i = 0; i < kDown; ++i) {
    for (int j = 0; j < kAcross; ++j) {
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + i * 16 + half * 8 + lane / 4;
        Chunk<Element>& chunk = shared[result_slot<kTile>(row, warp_column / 8 + j)];
        Pair<Element>& place = *reinterpret_cast<Pair<Element>*>(&chunk.elements[lane % 4 * 2]);
        float x = gemm.alpha * sum[i][j][half * 2];
        float y = gemm.alpha * sum[i][j][half * 2 + 1];
        if (gemm.beta != 0) {
          const Pair<Element> addend = place;
          x = fmaf(gemm.beta, float(addend.x), x);
          y = fmaf(gemm.beta, float(addend.y), y);
        }
        place = {Element(x), Element(y)};
      }
    }
  }
  __syncthreads();
  if (kSymmetric && at.row == at.column) {
    store_tile<Reading::mirrored, kTile>(gemm.out, at.matrix, at.row, at.column, shared);
  } else {
    store_tile<Reading::straight, kTile>(gemm.out, at.matrix, at.row, at.column, shared);
    if (kSymmetric) store_tile<Reading::transposed, kTile>(gemm.out, at.matrix, at.column, at.row, shared);
  }
}

template <typename Element, Contraction kContraction, bool kSymmetric, int kTile>
void launch_gemm_tensor(const Gemm& gemm, cudaStream_t stream) {
  const auto kernel = gemm_tensor<Element, kContraction, kSymmetric, kTile>;
  // The attribute belongs to the current device, so it cannot be set once and for all.
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kTensorShared<kTile>)),
          "cudaFuncSetAttribute");
  launch_tiles(kernel, kTile, kTensorThreads<kTile>, kTensorShared<kTile>, gemm, stream);
}

template <typename Element, Contraction kContraction, bool kSymmetric>
void launch_gemm_tensor(const Gemm& gemm, cudaStream_t stream) {
  int device;
  int processors;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  // The elements that the busiest processor gets. Small tiles spread the work more evenly and stick out less past the
  // edges, but take about 1.4 times as long for as many elements (an estimate from how often they read shared memory).
  const auto busiest = [&](int tile) {
    const int64_t tiles = tile_count(gemm.out, kSymmetric, tile) * gemm.count;
    return double((tiles + processors - 1) / processors) * tile * tile;
  };
  if (1.4 * busiest(64) < busiest(128)) {
    launch_gemm_tensor<Element, kContraction, kSymmetric, 64>(gemm, stream);
  } else {
    launch_gemm_tensor<Element, kContraction, kSymmetric, 128>(gemm, stream);
  }
}

}  // namespace root_optimizer::cuda
