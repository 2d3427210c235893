#pragma once

// What the passes over a batch's arrays have in common.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "../native/formulas.h"
#include "elements.cuh"
#include "launch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

/// A matrix, and what its batch says of it.
struct PassMatrix {
  Matrix matrix;
  int64_t rows;
  int64_t columns;
  bool nesterov;
  bool clips;           ///< whether B is U clipped at ε
  bool clips_gradient;  ///< whether G is clipped as the notes say
  StoredMatrices x;     ///< where its X lies; of `proximal` alone

  int64_t HOST_DEVICE size() const { return rows * columns; }
};

inline PassMatrix pass_matrix(const Batch& batch, const Matrix& matrix) {
  return {.matrix = matrix,
          .rows = batch.rows,
          .columns = batch.columns,
          .nesterov = batch.nesterov,
          .clips = batch.clips,
          .clips_gradient = batch.clips_gradient,
          .x = {}};
}

inline std::vector<PassMatrix> pass_matrices(std::span<const Batch> batches) {
  std::vector<PassMatrix> list;
  for (const Batch& batch : batches) {
    for (const Matrix& matrix : batch.matrices) list.push_back(pass_matrix(batch, matrix));
  }
  return list;
}

/// A block's share of a pass over a list whose entries have different sizes: it is block `index` of the `count` blocks
/// that work on an entry.
struct Share {
  uint32_t entry;
  uint32_t index;
  uint32_t count;
};

/// The shares of all blocks, for so many blocks an entry.
inline std::vector<Share> shares_of(const std::vector<unsigned>& blocks) {
  std::vector<Share> shares;
  for (uint32_t entry = 0; entry < blocks.size(); ++entry) {
    for (uint32_t index = 0; index < blocks[entry]; ++index) shares.push_back({entry, index, blocks[entry]});
  }
  return shares;
}

/// Records the thresholds that a step has used.
__device__ inline void remember(Thresholds& thresholds, const CheckNote& note) {
  thresholds.gradient_threshold = note.gradient.threshold;
  thresholds.gradient_scale = note.next_scale;
}

constexpr int kPassThreads = 256;

/// The blocks of a pass over `size` elements. They depend on nothing but the size, so sums over blocks do not either.
inline unsigned pass_blocks(int64_t size) {
  constexpr int64_t kElementsOfABlock = 16 * kPassThreads;
  constexpr int64_t kMostBlocks = 1024;
  return unsigned(std::clamp<int64_t>((size + kElementsOfABlock - 1) / kElementsOfABlock, 1, kMostBlocks));
}

/// The grid of a pass over entries of one size: blocks along x, and a row of blocks for each entry.
inline dim3 pass_grid(int64_t size, int64_t entries) { return dim3(pass_blocks(size), unsigned(entries)); }

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

/// Calls body(i, count) for the quads [i, i + count) of [0, size) that fall to this thread of a block.
template <typename Body>
__device__ void for_each_quad(int64_t size, const Share& share, Body body) {
  const int64_t threads = int64_t(share.count) * blockDim.x;
  for (int64_t i = 4 * (int64_t(share.index) * blockDim.x + threadIdx.x); i < size; i += 4 * threads) {
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

  __device__ LookAhead(const PassMatrix& p, const CheckNote* notes)
      : LookAhead(p.matrix.momentum, p.matrix.gradient, p.matrix.gradient == nullptr ? 0 : p.matrix.scalars->mu,
                  p.nesterov, p.clips_gradient ? notes[p.matrix.index].gradient : GradientClip{}) {}
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

/// What an update does to an element: θ ← decay·θ + rate·x.
struct ElementUpdate {
  float decay;
  float rate;
  bool cautious;
  bool reads;  ///< whether it needs θ at all

  __device__ explicit ElementUpdate(const MatrixScalars& scalars)
      : decay(scalars.decay), rate(scalars.rate), cautious(scalars.cautious), reads(decay != 0 || cautious) {}

  /// Whether it changes θ. If not, θ must not be written: −0 + 0 is 0.
  __device__ bool changes() const { return decay != 1 || rate != 0; }
  __device__ float next(float theta, float x) const {
    return reads ? decay_of(theta, x, decay, cautious) * theta + rate * x : rate * x;
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
