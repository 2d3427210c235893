#pragma once

// How a product on tensor cores ends: a square of the result is scaled and the addends are added. The square is rounded
// and stored, or it updates θ. It goes through shared memory, so that global memory is read and written in whole lines.

#include "batch.cuh"
#include "elements.cuh"
#include "gemm.cuh"
#include "launch.cuh"

namespace root_optimizer::cuda {

/// The place of a chunk in a tile of kChunks chunks a row. Eight lanes that take one column's chunks of eight
/// successive rows meet different banks.
template <int kChunks>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  return row * kChunks + (chunk ^ (kChunks == 4 ? row >> 1 & 3 : row & 7));
}

/// The place of a chunk in a square of the result. Lanes that take one of every eighth row meet different banks as
/// well.
template <int kSide>
__device__ __forceinline__ int result_slot(int row, int chunk) {
  return swizzled<kSide / 8>(row, chunk ^ (row >> 3 & 7));
}

template <typename Element>
struct alignas(4) Pair {
  Element x, y;
};

/// A square of kSide × kSide elements of a batch's matrix. kThreads threads work on it, numbered from 0; they meet at a
/// barrier of their own.
template <typename Element, int kSide, int kThreads>
class ResultSquare {
 public:
  /// Chunks of shared memory: for the first addend or the result, and for the second one or the second parts. An update
  /// has its direction in float32 there: elements of even columns first, then those of odd ones.
  static constexpr int kChunks = kSide * kSide / 8;
  static constexpr int kSharedChunks = 2 * kChunks;

  __device__ ResultSquare(int64_t matrix, int64_t row, int64_t column, int thread, int barrier, Chunk<Element>* shared)
      : matrix_(matrix), row_(row), column_(column), thread_(thread), barrier_(barrier), shared_(shared) {}

  /// Fetches the addends and θ into the L2 cache, which takes as long as the products do.
  template <bool kSymmetric>
  __device__ void prefetch(const Gemm& gemm) const {
    if (kSymmetric && row_ < column_) return;
    for (const Addend& addend : gemm.addends) {
      if (addend.factor == 0) continue;
      const StoredMatrices& c = addend.matrices;
      prefetch_lines(static_cast<const Element*>(c.data) + matrix_ * c.stride, c.rows, c.columns, c.pitch);
    }
    if (kSymmetric || gemm.update == nullptr) return;
    prefetch_lines(gemm.update[matrix_].data, gemm.out.rows, gemm.out.columns, gemm.out.columns);
  }

  /// Stores α·sum + the addends. `sums(use)` calls use(row, column, x, y) for the pairs of sums that this thread holds;
  /// a pair's column is even. Of a symmetric result what lies on and below the diagonal is stored twice.
  template <bool kSymmetric, typename Sums>
  __device__ void finish(const Gemm& gemm, Sums sums) const {
    if (kSymmetric && row_ < column_) return;
    if constexpr (!kSymmetric) {
      if (gemm.update != nullptr) return update(gemm, sums);
    }
    const bool splits = !kSymmetric && gemm.out.low != nullptr;
    scale_and_add(gemm, sums, [&](Pair<Element>& first, Pair<Element>& second, float x, float y) {
      first = {Element(x), Element(y)};
      if (splits) {
        second = {Element((x - float(first.x)) * kLowScale<Element>),
                  Element((y - float(first.y)) * kLowScale<Element>)};
      }
    });
    if (kSymmetric && row_ == column_) {
      store<Reading::mirrored>(gemm.out, gemm.out.data, shared_, row_, column_);
    } else {
      store<Reading::straight>(gemm.out, gemm.out.data, shared_, row_, column_);
      if (kSymmetric) store<Reading::transposed>(gemm.out, gemm.out.data, shared_, column_, row_);
      if (splits) store<Reading::straight>(gemm.out, gemm.out.low, shared_ + kChunks, row_, column_);
    }
  }

  /// Stores the sums of a part of the depth, on and below the diagonal.
  template <typename Sums>
  __device__ void store_part(const Gemm& gemm, int part, Sums sums) const {
    if (row_ < column_) return;
    float* out = gemm.parts + (int64_t(part) * gemm.count + matrix_) * gemm.out.stride;
    sums([&](int row, int column, float x, float y) {
      if (row_ + row >= gemm.out.rows || column_ + column >= gemm.out.pitch) return;
      *reinterpret_cast<float2*>(out + (row_ + row) * gemm.out.pitch + column_ + column) = make_float2(x, y);
    });
  }

 private:
  /// `mirrored` takes what is above the diagonal from below.
  enum class Reading { straight, transposed, mirrored };

  __device__ void meet() const { named_barrier<kThreads>(barrier_); }

  __device__ Pair<Element>& pair(int slot, int column) const {
    return *reinterpret_cast<Pair<Element>*>(&shared_[slot].elements[column % 8]);
  }

  template <typename T>
  __device__ void prefetch_lines(const T* data, int64_t rows, int64_t columns, int64_t pitch) const {
    constexpr int kLine = 128 / sizeof(T);
    for (int index = thread_; index < kSide * (kSide / kLine); index += kThreads) {
      const int64_t row = row_ + index / (kSide / kLine);
      const int64_t column = column_ + index % (kSide / kLine) * kLine;
      if (row < rows && column < columns) prefetch_line(data + row * pitch + column);
    }
  }

  /// Calls put(first, second, x, y) for all pairs x, y of the result. `first` and `second` are where the pair's addends
  /// were, and nobody else's.
  template <typename Sums, typename Put>
  __device__ void scale_and_add(const Gemm& gemm, Sums sums, Put put) const {
    const bool adds_first = gemm.addends[0].factor != 0;
    const bool adds_second = gemm.addends[1].factor != 0;
    if (adds_first) fetch(gemm.addends[0].matrices, shared_);
    if (adds_second) fetch(gemm.addends[1].matrices, shared_ + kChunks);
    if (adds_first || adds_second) {
      commit_copies();
      wait_copies<0>();
      meet();
    }
    sums([&](int row, int column, float x, float y) {
      x *= gemm.alpha;
      y *= gemm.alpha;
      const int slot = result_slot<kSide>(row, column / 8);
      Pair<Element>& first = pair(slot, column);
      Pair<Element>& second = pair(kChunks + slot, column);
      if (adds_second) add(second, gemm.addends[1].factor, x, y);
      if (adds_first) add(first, gemm.addends[0].factor, x, y);
      put(first, second, x, y);
    });
    meet();
  }

  /// θ ← decay·θ + rate·result. The direction is not rounded.
  template <typename Sums>
  __device__ void update(const Gemm& gemm, Sums sums) const {
    const Matrix& matrix = gemm.update[matrix_];
    const ElementUpdate update(*matrix.scalars);
    if (*gemm.gate != 0 || !update.changes()) return;
    scale_and_add(gemm, sums, [&](Pair<Element>& first, Pair<Element>& second, float x, float y) {
      memcpy(&first, &x, sizeof x);
      memcpy(&second, &y, sizeof y);
    });

    const int64_t rows = gemm.out.rows;
    const int64_t columns = gemm.out.columns;
    const bool whole_words = columns % 4 == 0 && aligned(matrix.data);
    // Loads of several chunks are under way at a time: each takes as long as hundreds of instructions.
    constexpr int kAtOnce = 4;
    static_assert(kChunks % (kAtOnce * kThreads) == 0);
    for (int begin = thread_; begin < kChunks; begin += kAtOnce * kThreads) {
      Quad theta[kAtOnce][2] = {};
      const auto for_quads = [&](auto body) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int row = (begin + i * kThreads) / (kSide / 8);
          const int chunk = (begin + i * kThreads) % (kSide / 8);
          if (row_ + row >= rows) continue;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int64_t column = column_ + chunk * 8 + half * 4;
            const int count = int(min(columns - column, int64_t(4)));
            if (count > 0) body(theta[i][half], row, chunk, half, (row_ + row) * columns + column, count);
          }
        }
      };
      if (update.reads) {
        for_quads([&](Quad& quad, int, int, int, int64_t at, int count) {
          quad = load_quad(matrix.data, at, count, whole_words);
        });
      }
      for_quads([&](Quad& quad, int row, int chunk, int half, int64_t at, int count) {
        const int slot = result_slot<kSide>(row, chunk);
        float even[2];
        float odd[2];
        memcpy(even, &shared_[slot].elements[half * 4], sizeof even);
        memcpy(odd, &shared_[kChunks + slot].elements[half * 4], sizeof odd);
        for (int e = 0; e < 4; ++e) quad.v[e] = update.next(quad.v[e], e % 2 == 0 ? even[e / 2] : odd[e / 2]);
        store_quad(matrix.data, at, count, whole_words, quad);
      });
    }
  }

  static __device__ void add(const Pair<Element>& addend, float factor, float& x, float& y) {
    x = fmaf(factor, float(addend.x), x);
    y = fmaf(factor, float(addend.y), y);
  }

  /// Begins to copy the square of an addend.
  __device__ void fetch(const StoredMatrices& c, Chunk<Element>* square) const {
    const Element* data = static_cast<const Element*>(c.data) + matrix_ * c.stride;
    for (int index = thread_; index < kChunks; index += kThreads) {
      const int row = index / (kSide / 8);
      const int chunk = index % (kSide / 8);
      const int64_t column = column_ + chunk * 8;
      copy_async_16(&square[result_slot<kSide>(row, chunk)], data + (row_ + row) * c.pitch + column,
                    row_ + row < c.rows && column < c.columns);
    }
  }

  template <Reading kReading>
  __device__ void store(const StoredMatrices& out, void* data, const Chunk<Element>* square, int64_t row0,
                        int64_t column0) const {
    const auto element = [&](int row, int column) {
      return square[result_slot<kSide>(row, column / 8)].elements[column % 8];
    };
    for (int index = thread_; index < kChunks; index += kThreads) {
      // Eight lanes store 128 bytes. Sixteen would meet in their banks when they read a column.
      const int row = index / 8 % kSide;
      const int column = (index / (8 * kSide) * 8 + index % 8) * 8;
      if (row0 + row >= out.rows || column0 + column >= out.pitch) continue;
      Chunk<Element> chunk;
      if (kReading == Reading::straight) {
        chunk = square[result_slot<kSide>(row, column / 8)];
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
      static_cast<Chunk<Element>*>(data)[(matrix_ * out.stride + (row0 + row) * out.pitch + column0 + column) / 8] =
          chunk;
    }
  }

  const int64_t matrix_, row_, column_;
  const int thread_, barrier_;
  Chunk<Element>* const shared_;
};

}  // namespace root_optimizer::cuda
