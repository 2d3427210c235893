#pragma once

#include <algorithm>
#include <cstdint>

#include "../formulas.h"

/// For functions that must not become calls: they pass vectors that only the instruction set at hand has registers for.
#define KERNEL_INLINE __attribute__((always_inline)) static inline
#define KERNEL_LAMBDA __attribute__((always_inline))

namespace root_optimizer::cpu {

/// A part of a product's result, at multiples of the row tile and of the panel width. Some rows beyond it may be
/// written.
struct Block {
  int64_t row0, rows;
  int64_t column0, columns;
};

/// A product over panel layouts, out ← α·op(a)·b + β·c, for one block of `out`.
struct GemmBlock {
  const float* a;
  const float* b;
  const float* c;
  float* out;
  int64_t a_pitch, b_pitch, c_pitch, out_pitch;
  int64_t depth;        // length of the sums
  int64_t depth_block;  // how much of the depth at a time, a multiple of kTerms
  float alpha, beta;
  bool transposed;  // op(a) = aᵀ, else a
  bool symmetric;   // out is symmetric: compute what lies on and below the diagonal, then mirror the block
  Block at;
};

/// The same of bfloat16 operands, which lie in words of two values: see PanelLayout.
struct PairBlock {
  const uint32_t* a;  // transposed: pairs of rows, else pairs of columns
  const uint32_t* b;  // pairs of rows, as is c
  const uint32_t* c;
  uint32_t* out;          // pairs of rows; null: the result goes to `out_floats`
  uint32_t* out_columns;  // pairs of columns; null: not wanted
  float* out_floats;
  int64_t a_pitch, b_pitch, c_pitch, out_pitch;  // in words or floats
  int64_t depth;  // in words; where the length of the sums is odd, the last word's upper half is 0 in both operands
  float alpha, beta;
  bool transposed;
  bool symmetric;
  Block at;
};

/// U of one matrix, formed from M and G before M has become μM + G. Without a gradient U is M.
struct LookAhead {
  float* momentum;
  const float* gradient;
  float mu;
  bool nesterov;

  float operator()(int64_t i) const {
    if (gradient == nullptr) return momentum[i];
    const float next = next_momentum(momentum[i], gradient[i], mu);
    return nesterov ? look_ahead(next, gradient[i], mu) : next;
  }
};

/// A matrix passes into or out of a panel so many rows at a time, so that both stay in the first-level cache.
constexpr int64_t kStrip = 64;

/// A part of a matrix that passes into a panel or out of one. The panel's rows are as far apart as it is wide.
struct Strip {
  int64_t first;   // the matrix' element that the part begins with
  int64_t stride;  // from row to row of the matrix
  int64_t rows, columns;
  bool transposed;  // the panel has the matrix' columns for rows
};

inline float clamp(float u, float limit) { return std::min(std::max(u, -limit), limit); }

/// How a run of elements lies to a bracket of magnitudes.
struct Bracketed {
  int64_t below, inside;  ///< elements below the bracket and inside it
  double squares;         ///< the sum of the squares of those below
  bool finite;            ///< whether all elements are
};

/// Products whose operands are bfloat16 and whose sums are float32, in panels as wide as those of their instruction
/// set.
struct PairKernels {
  void (*gemm_block)(const PairBlock& block);
  /// Rounds a panel's rows, an even number, to bfloat16: to pairs of rows and, unless null, pairs of columns.
  void (*narrow)(const float* in, int64_t rows, uint32_t* out, uint32_t* out_columns);
  /// The converse, from pairs of rows.
  void (*widen)(const uint32_t* in, int64_t rows, float* out);
  double (*multiply_adds)(int64_t rounds);
};

/// The kernels of one instruction set, all compiled from kernels.inc. Sums of doubles have the same order in all sets.
struct Kernels {
  const char* name;
  int64_t panel_width;
  int64_t row_tile;
  void (*gemm_block)(const GemmBlock& block);
  /// Σ clamp(U, ±limit)² over [begin, end).
  double (*clipped_squares)(const LookAhead& u, int64_t begin, int64_t end, float limit);
  /// Whether U holds an infinity or NaN there. It does where M ← μM + G would.
  bool (*has_non_finite)(const LookAhead& u, int64_t begin, int64_t end);
  /// Writes the keys of U's magnitudes that lie within [floor, floor + width] to `inside`, in order; there is room for
  /// all keys.
  Bracketed (*collect_bracket)(const LookAhead& u, int64_t begin, int64_t end, uint32_t floor, uint32_t width,
                               uint32_t* inside);
  /// M ← μM + G, where there is a gradient, and out ← clamp(U, ±limit)·factor, rounded once.
  void (*proximal_strip)(const LookAhead& u, const Strip& strip, float limit, double factor, float* out);
  /// θ ← decay·θ + rate·X. Where `decay` is 0, θ is not read: it may be NaN.
  void (*update_strip)(float* data, const Strip& strip, const float* in, float decay, float rate);
  /// Does `rounds` multiply-adds on each element of a register tile, without memory, and returns the FLOP done: the
  /// most that a core can do.
  double (*multiply_adds)(int64_t rounds);
  const PairKernels* pairs = nullptr;  ///< null: no instructions for them
};

/// Null where the compiler or the processor lacks the set. `avx512_bf16_kernels` are AVX-512's with products of
/// bfloat16.
const Kernels* avx512_bf16_kernels();
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
/// Vectors of 128 bits, which the processor family guarantees (SSE2, NEON).
const Kernels* baseline_kernels();

/// The side of the square blocks that a product is divided into: tasks of one size, with operands that fit the
/// second-level cache. A multiple of every set's panel width.
constexpr int64_t kGemmBlock = 192;

/// A product of floats adds up so many terms one after the other, then the sums of such parts: the error grows with the
/// root of the length of a sum. A multiple of every set's panel width. It does not follow the caches, so that results
/// depend on the instruction set alone.
constexpr int64_t kTerms = 144;

}  // namespace root_optimizer::cpu
