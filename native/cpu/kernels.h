#pragma once

#include <algorithm>
#include <cstdint>

#include "../formulas.h"

/// Marks functions that must be inlined: they pass vectors for which only the current instruction set has registers.
#define KERNEL_INLINE __attribute__((always_inline)) static inline
#define KERNEL_INLINE_MEMBER __attribute__((always_inline)) inline
#define KERNEL_LAMBDA __attribute__((always_inline))

namespace root_optimizer::cpu {

/// A part of a product's result that begins at multiples of the row tile and of the panel width. A kernel may write
/// some rows beyond it.
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
  int64_t depth_block;  // the depth that is processed at a time, a multiple of kTerms
  float alpha, beta;
  bool transposed;  // op(a) = aᵀ, else a
  bool symmetric;   // out is symmetric: compute what lies on and below the diagonal, then mirror the block
  Block at;
};

/// A GemmBlock of bfloat16 operands, which lie in words of two values: see PanelLayout.
struct PairBlock {
  const uint32_t* a;  // pairs of rows if `transposed`, else pairs of columns
  const uint32_t* b;  // pairs of rows, as is c
  const uint32_t* c;
  uint32_t* out;          // pairs of rows; null: the result goes to `out_floats`
  uint32_t* out_columns;  // pairs of columns; null: not wanted
  float* out_floats;
  int64_t a_pitch, b_pitch, c_pitch, out_pitch;  // in words or floats
  int64_t depth;  // in words; if the length of the sums is odd, the last word's upper half is 0 in both operands
  float alpha, beta;
  bool transposed;
  bool symmetric;
  Block at;
};

/// A matrix in blocks for matrix units: see PanelLayout. Pointers to what one matrix has of each kind.
struct Blocks {
  uint32_t* by_rows;     ///< first operands; null if not wanted
  uint32_t* by_columns;  ///< second operands
  uint32_t* rest;        ///< what the parts leave, by rows; null if not wanted
  int64_t down, across;  ///< the blocks of a column and of a row

  uint32_t* row_block(int64_t i, int64_t k, int parts) const { return by_rows + (i * across + k) * parts * kWords; }
  uint32_t* column_block(int64_t k, int64_t j, int parts) const { return by_columns + (j * down + k) * parts * kWords; }
  uint32_t* rest_block(int64_t i, int64_t k) const { return rest + (i * across + k) * kWords; }

  static constexpr int64_t kSide = 32;    ///< rows and columns of a block
  static constexpr int64_t kWords = 512;  ///< of a part of a block
};

/// A product of matrices in blocks, out ← α·op(a)·b + β·c, for one block of `out`.
struct TileBlock {
  Blocks a;  ///< by rows; if `symmetric`, by columns, and op(a) = aᵀ
  Blocks b;  ///< by columns
  Blocks c;  ///< by rows with the rest, or if `symmetric` by columns
  Blocks out;
  int64_t rows, columns;  ///< of `out`, without padding
  int64_t depth;          ///< in blocks
  float alpha, beta;
  bool symmetric;    ///< compute what lies on and below the diagonal, then mirror it
  Block at;          ///< begins at multiples of a block's side
  uint32_t* packed;  ///< scratch: kTileDepth blocks
  float* sums;       ///< scratch: a block of floats for each block of `at`, two at least
};

/// The blocks of depth that a product takes at a time. It decides how sums are rounded, and so does not depend on the
/// caches.
constexpr int64_t kTileDepth = 32;

/// Products on matrix units. Operands are sums of `parts` values of bfloat16, sums of products are float32.
struct TileKernels {
  void (*multiply)(const TileBlock& block, int parts);
  /// Rounds a square of kSide × kSide floats to block (i, j): to the parts and the rest.
  void (*narrow)(const float* in, const Blocks& out, int64_t i, int64_t j, int parts);
  /// Adds up the parts and the rest of block (i, j).
  void (*widen)(const Blocks& in, int64_t i, int64_t j, int parts, float* out);
};

/// U of one matrix, formed from M and G before M has become μM + G. Without a gradient U is M.
struct LookAhead {
  float* momentum;
  const float* gradient;
  float mu;
  bool nesterov;
  bool clips_gradient;
  GradientClip clip;

  float gradient_at(int64_t i) const { return clips_gradient ? clipped(gradient[i], clip) : gradient[i]; }
  float operator()(int64_t i) const {
    if (gradient == nullptr) return momentum[i];
    const float g = gradient_at(i);
    const float next = next_momentum(momentum[i], g, mu);
    return nesterov ? look_ahead(next, g, mu) : next;
  }
};

/// The rows that pass into or out of a panel at a time, so few that matrix and panel stay in the first-level cache.
constexpr int64_t kStrip = 64;

/// A part of a matrix that passes into a panel or out of one. The panel's rows are as far apart as it is wide.
struct Strip {
  int64_t first;   // the index in the matrix of the part's first element
  int64_t stride;  // from row to row of the matrix
  int64_t rows, columns;
  bool transposed;  // the panel's rows are the matrix's columns
};

/// How θ moves along X.
struct UpdateScalars {
  float decay, rate;
  bool cautious;
};

inline float clamp(float u, float limit) { return std::min(std::max(u, -limit), limit); }

/// A run of elements compared with a bracket of magnitudes.
struct Bracketed {
  int64_t below, inside;  ///< elements below the bracket and inside it
  double squares;         ///< the sum of the squares of the elements below
  bool finite;            ///< whether all elements are
};

/// Products whose operands are bfloat16 and whose sums are float32, in panels as wide as those of their instruction
/// set.
struct PairKernels {
  void (*gemm_block)(const PairBlock& block);
  /// Rounds an even number of a panel's rows to bfloat16: to pairs of rows and, if `out_columns` is not null, to pairs
  /// of columns.
  void (*narrow)(const float* in, int64_t rows, uint32_t* out, uint32_t* out_columns);
  /// Converts pairs of rows back to floats.
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
  /// Whether U has an infinity or NaN in [begin, end). If μM + G has one, so has U.
  bool (*has_non_finite)(const LookAhead& u, int64_t begin, int64_t end);
  /// Writes the keys of U's magnitudes that lie within [floor, floor + width] to `inside`, in order; there is room for
  /// all keys.
  Bracketed (*collect_bracket)(const LookAhead& u, int64_t begin, int64_t end, uint32_t floor, uint32_t width,
                               uint32_t* inside);
  /// M ← μM + G if there is a gradient, and out ← clamp(U, ±limit)·factor, rounded once.
  void (*proximal_strip)(const LookAhead& u, const Strip& strip, float limit, double factor, float* out);
  /// θ ← decay·θ + rate·X. If `decay` is 0, θ is not read, because it may be NaN.
  void (*update_strip)(float* data, const Strip& strip, const float* in, const UpdateScalars& update);
  /// Does `rounds` multiply-adds on each element of a register tile, without touching memory, and returns the FLOP
  /// done. It measures the most that a core can do.
  double (*multiply_adds)(int64_t rounds);
  const PairKernels* pairs = nullptr;  ///< null if the set has no instructions for them
  /// Not null: panels are as wide as a block, and all products are those of `tiles`.
  const TileKernels* tiles = nullptr;
};

/// The kernels of a set; null if the compiler or the processor lacks it. `avx512_bf16_kernels` are those of AVX-512
/// with products of bfloat16.
const Kernels* avx512_bf16_kernels();
/// The kernels for matrices in blocks: on the processor's matrix units, and with units that are emulated bit for bit.
/// `amx_kernels` is null where the process may not use the units, which it asks for once.
const Kernels* amx_kernels();
const Kernels* emulated_amx_kernels();
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
/// The kernels for vectors of 128 bits, which the processor family guarantees (SSE2, NEON).
const Kernels* baseline_kernels();

/// The side of the square blocks that a product is divided into: tasks of one size, with operands that fit the
/// second-level cache. A multiple of every set's panel width.
constexpr int64_t kGemmBlock = 192;

/// A product of floats adds up this many terms one after the other, then the sums of such parts, because the error
/// grows with the root of the length of a sum. A multiple of every set's panel width. It does not depend on the caches,
/// so that results depend on the instruction set alone.
constexpr int64_t kTerms = 144;

}  // namespace root_optimizer::cpu
