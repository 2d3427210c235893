#pragma once

// What the passes over a batch's arrays have in common.

#include <algorithm>
#include <cstdint>
#include <span>

#include "../native/formulas.h"
#include "elements.cuh"
#include "launch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

/// The most entries that a launch takes by value, within the 4 KiB that kernel parameters may fill on any driver. A
/// captured graph holds values itself, so that no table in memory has to be kept for it.
constexpr int kTableEntries = 48;
static_assert(kTableEntries * std::max(sizeof(Matrix), sizeof(Moments)) + 256 <= 4096);

template <typename T>
struct Table {
  T entries[kTableEntries];
};

template <typename T>
Table<T> table_of(std::span<const T> list) {
  Table<T> table{};
  std::copy(list.begin(), list.end(), table.entries);
  return table;
}

inline Table<Matrix> table_of(const Batch& batch) { return table_of(std::span(batch.matrices)); }

/// How the kernels of a batch form U and B.
struct Forming {
  bool nesterov;
  bool clips;              ///< whether B is U clipped at ε
  bool clips_gradient;     ///< whether G is clipped as the notes say
  const CheckNote* notes;  ///< by Matrix::index
};

inline Forming forming(const Batch& batch, const CheckNote* notes) {
  return {.nesterov = batch.nesterov, .clips = batch.clips, .clips_gradient = batch.clips_gradient, .notes = notes};
}

/// Records the thresholds that a step has used.
__device__ inline void remember(Thresholds& thresholds, const CheckNote& note) {
  thresholds.gradient_threshold = note.gradient.threshold;
  thresholds.gradient_scale = note.next_scale;
}

constexpr int kPassThreads = 256;

/// The grid of a pass over `size` elements: blocks along x, and a row of blocks for each entry. The number along x
/// depends on nothing but the size, so sums over blocks do not either.
inline dim3 pass_grid(int64_t size, int64_t entries) {
  constexpr int64_t kElementsOfABlock = 16 * kPassThreads;
  constexpr int64_t kMostBlocks = 1024;
  const int64_t blocks = std::min((size + kElementsOfABlock - 1) / kElementsOfABlock, kMostBlocks);
  return dim3(unsigned(std::max<int64_t>(blocks, 1)), unsigned(entries));
}

inline dim3 pass_grid(const Batch& batch) { return pass_grid(batch.size(), batch.count()); }

struct Quad {
  float v[4];
};

/// Whether quads of an array can be moved as 16 bytes.
__device__ inline bool aligned(const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; }

/// Elements [i, i + count), with zeros behind them. If `whole_words`, array + i is aligned.
__device__ inline Quad load_quad(const float* array, int64_t i, int count, bool whole_words) {
  if (whole_words && count == 4) {
    const float4 word = *reinterpret_cast<const float4*>(array + i);
    return {{word.x, word.y, word.z, word.w}};
  }
  Quad quad{};
  for (int e = 0; e < 4; ++e) {
    if (e < count) quad.v[e] = array[i + e];
  }
  return quad;
}

__device__ inline void store_quad(float* array, int64_t i, int count, bool whole_words, const Quad& quad) {
  if (whole_words && count == 4) {
    *reinterpret_cast<float4*>(array + i) = make_float4(quad.v[0], quad.v[1], quad.v[2], quad.v[3]);
    return;
  }
  for (int e = 0; e < 4; ++e) {
    if (e < count) array[i + e] = quad.v[e];
  }
}

/// Calls body(i, count) for the quads [i, i + count) of [0, size) that fall to this thread.
template <typename Body>
__device__ void for_each_quad(int64_t size, Body body) {
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = 4 * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x); i < size; i += 4 * threads) {
    body(i, int(min(int64_t(4), size - i)));
  }
}

/// U of one matrix, formed from the M that the step has not updated yet.
struct LookAhead {
  const float* momentum;
  const float* gradient;  ///< null: U is M
  float mu;
  bool nesterov;
  GradientClip clip;
  bool whole_words;

  /// Quads begin at multiples of `row_length` and of 4.
  __device__ LookAhead(const Matrix& matrix, const Forming& forming, int64_t row_length = 4)
      : LookAhead(matrix.momentum, matrix.gradient, matrix.gradient == nullptr ? 0 : matrix.scalars->mu,
                  forming.nesterov, forming.clips_gradient ? forming.notes[matrix.index].gradient : GradientClip{}) {
    whole_words = whole_words && row_length % 4 == 0;
  }
  __device__ LookAhead(const float* momentum, const float* gradient, float mu, bool nesterov, const GradientClip& clip)
      : momentum(momentum),
        gradient(gradient),
        mu(mu),
        nesterov(nesterov),
        clip(clip),
        whole_words(aligned(momentum) && aligned(gradient)) {}

  /// Elements [i, i + count) of U. Sets `next` to those of the M that the step will store.
  __device__ Quad quad(int64_t i, int count, Quad& next) const {
    next = load_quad(momentum, i, count, whole_words);
    if (gradient == nullptr) return next;
    const Quad g = load_quad(gradient, i, count, whole_words);
    Quad u;
    for (int e = 0; e < 4; ++e) {
      const float kept = clipped(g.v[e], clip);
      next.v[e] = next_momentum(next.v[e], kept, mu);
      u.v[e] = nesterov ? look_ahead(next.v[e], kept, mu) : next.v[e];
    }
    return u;
  }
  __device__ Quad quad(int64_t i, int count) const {
    Quad next;
    return quad(i, count, next);
  }
};

__device__ inline float clamp(float u, float limit) { return min(max(u, -limit), limit); }

/// True for infinities and NaN.
__device__ inline bool not_finite(float x) { return !(fabsf(x) <= 3.402823466e38f); }

/// Sums a value over the block, in a fixed order. The result is thread 0's. Between two sums the block has to meet.
__device__ inline double block_sum(double value) {
  SHARED_ARRAY(double, warps, kPassThreads / 32);
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_down_sync(0xffffffffu, value, distance);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < kPassThreads / 32; ++w) total += warps[w];
  }
  return total;
}

}  // namespace root_optimizer::cuda
