#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

/// For what must not become a call: it passes vectors that only the instruction set at hand has registers for.
#define KERNEL_INLINE __attribute__((always_inline)) static inline
#define KERNEL_LAMBDA __attribute__((always_inline))

namespace root_optimizer {

/// A block of a product over panel layouts: out[row0 … +rows, column0 … +columns) of α·op(a)·b + β·c.
struct GemmBlock {
  const float* a;
  const float* b;
  const float* c;
  float* out;
  int64_t a_pitch, b_pitch, c_pitch, out_pitch;
  int64_t row0, rows;        // row0 a multiple of the row tile; of rows beyond these some may be written
  int64_t column0, columns;  // column0 a multiple of the panel width
  int64_t depth;             // length of the sums
  int64_t depth_block;       // how much of it at a time, a multiple of kTerms
  float alpha, beta;
  bool transposed;  // op(a) = aᵀ, else a
  bool symmetric;   // out is symmetric: compute what lies on and below the diagonal, then mirror the block
};

/// The same of bfloat16 operands, which lie in words of two values: see PanelLayout.
struct PairBlock {
  const uint32_t* a;  // transposed: pairs of rows, else pairs of columns
  const uint32_t* b;  // pairs of rows, as is c
  const uint32_t* c;
  uint32_t* out;          // pairs of rows; null: `out_floats` instead
  uint32_t* out_columns;  // pairs of columns; null: not wanted
  float* out_floats;
  int64_t a_pitch, b_pitch, c_pitch, out_pitch;  // in words or floats
  int64_t row0, rows;
  int64_t column0, columns;
  int64_t depth;  // in words; where the length is odd, the last one's upper half is 0 in both operands
  float alpha, beta;
  bool transposed;
  bool symmetric;
};

/// Where U comes from, for one matrix, before its M has become μM + G. Without a gradient M is U.
struct LookAhead {
  float* momentum;
  const float* gradient;
  float mu;
  bool nesterov;

  float operator()(int64_t i) const {
    if (gradient == nullptr) return momentum[i];
    const float next = mu * momentum[i] + gradient[i];
    return nesterov ? gradient[i] + mu * next : next;
  }
};

/// Rows of a panel that a matrix passes into or out of at a time, so that both stay in the first-level cache.
constexpr int64_t kStrip = 64;

/// A part of a matrix that passes into a panel or out of one, whose rows are as far apart as it is wide.
struct Strip {
  int64_t first;   // element of the matrix
  int64_t stride;  // from row to row of it
  int64_t rows, columns;
  bool transposed;  // the panel has the matrix' columns for rows
};

inline float clamp(float u, float limit) { return std::min(std::max(u, -limit), limit); }

/// |u| as an integer: the bits of a float without its sign order as its magnitude does.
inline uint32_t key_of(float u) {
  uint32_t bits;
  std::memcpy(&bits, &u, sizeof bits);
  return bits & 0x7fffffff;
}

inline float magnitude_of(uint32_t key) {
  float magnitude;
  std::memcpy(&magnitude, &key, sizeof magnitude);
  return magnitude;
}

/// What a run of elements has of a bracket of magnitudes.
struct Bracketed {
  int64_t below, inside;
  double squares;  ///< the sum of the squares of those below
  bool finite;     ///< all elements
};

/// Products whose operands are bfloat16 and whose sums are float32, in panels as wide as those of the set they belong
/// to.
struct PairKernels {
  void (*gemm_block)(const PairBlock& block);
  /// A panel's rows, an even number of them, rounded to bfloat16: to pairs of rows and, unless null, pairs of columns.
  void (*narrow)(const float* in, int64_t rows, uint32_t* out, uint32_t* out_columns);
  /// The converse, from pairs of rows.
  void (*widen)(const uint32_t* in, int64_t rows, float* out);
  double (*spin)(int64_t rounds);
};

/// What is compiled once per instruction set (kernels.inc). Sums of doubles have an order of their own, the same in all
/// sets.
struct Kernels {
  const char* name;
  int64_t panel_width;
  int64_t row_tile;
  void (*gemm_block)(const GemmBlock& block);
  /// Σ clamp(u, ±limit)² over [begin, end).
  double (*clipped_squares)(const LookAhead& u, int64_t begin, int64_t end, float limit);
  /// Whether U holds an infinity or NaN there; it does where M ← μM + G would.
  bool (*overflows)(const LookAhead& u, int64_t begin, int64_t end);
  /// The keys of U's magnitudes that lie within [floor, floor + width], in order, to `inside`, which has room for all.
  Bracketed (*survey)(const LookAhead& u, int64_t begin, int64_t end, uint32_t floor, uint32_t width, uint32_t* inside);
  /// M ← μM + G, where there is a gradient, and out ← clamp(u, ±limit)·factor, rounded once.
  void (*enter)(const LookAhead& u, const Strip& strip, float limit, double factor, float* out);
  /// θ ← decay·θ + rate·X; what θ was does not count where `decay` is 0, be it NaN.
  void (*leave)(float* data, const Strip& strip, const float* in, float decay, float rate);
  /// `rounds` multiply-adds on each element of a register tile, with no memory in between: FLOP done. What a core can
  /// do at most.
  double (*spin)(int64_t rounds);
  const PairKernels* pairs = nullptr;  ///< null: no instructions for them
};

/// Null where the compiler or the processor lacks the set.
/// AVX-512's, and products of bfloat16.
const Kernels* avx512_bf16_kernels();
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
/// 128-bit vectors of the kind that the processor family guarantees (SSE2, NEON).
const Kernels* baseline_kernels();

/// Side of the square blocks that a product is divided into: tasks of one size, and operands that fit the second-level
/// cache. A multiple of every set's panel width.
constexpr int64_t kGemmBlock = 192;

/// A product of floats adds up so many terms one after the other, then sums of so many: the error of a sum grows with
/// the root of how many. A multiple of every set's panel width, and the same whatever the caches are, so that results
/// depend on the instruction set alone.
constexpr int64_t kTerms = 144;

}  // namespace root_optimizer
