// Products of bfloat16 by VDPBF16PS: each lane takes a word of either operand, which is two values, and adds both
// products to a float. PanelLayout says how operands lie.

#include <algorithm>
#include <utility>

#include "kernels.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#include <immintrin.h>

// Pragmas rather than a compiler flag, so that neither build system needs flags for single files.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")
#endif

namespace root_optimizer::cpu {
namespace avx512bf16 {

typedef float Vector __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
constexpr int kLanes = 16;
constexpr int kPanelVectors = 3;
constexpr int kRows = 8;

#include "transpose.inc"

constexpr int64_t kPairsAcross = kWidth / 2;  // words of a row in pairs of columns

KERNEL_INLINE Vector broadcast(float x) { return (Vector)_mm512_set1_ps(x); }
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
}

// The lower and the upper halves of words as floats.
KERNEL_INLINE Vector lower(Words words) { return (Vector)(words << 16); }
KERNEL_INLINE Vector upper(Words words) { return (Vector)(words & 0xffff0000u); }

// Rounds sixteen values to nearest, ties to even. Denormals become zero.
KERNEL_INLINE Halves rounded(Vector x) { return (Halves)_mm512_cvtneps_pbh((__m512)x); }

KERNEL_INLINE Words paired(Halves low, Halves high) {
  return __builtin_convertvector(low, Words) | __builtin_convertvector(high, Words) << 16;
}

template <int kVectors, int64_t kRowStride>
KERNEL_INLINE void add_outer_product(Vector (&sum)[kRows][kVectors], const uint32_t* a, const uint32_t* b) {
  __m512i row[kVectors];
  for (int v = 0; v < kVectors; ++v) row[v] = _mm512_load_si512(b + v * kLanes);
  for (int r = 0; r < kRows; ++r) {
    const __m512i factor = _mm512_set1_epi32(int(a[r * kRowStride]));
    for (int v = 0; v < kVectors; ++v)
      sum[r][v] = (Vector)_mm512_dpbf16_ps((__m512)sum[r][v], (__m512bh)factor, (__m512bh)row[v]);
  }
}

// Stores a pair of rows of a result, kLanes wide, in all places where they belong.
KERNEL_INLINE void store(const PairBlock& g, int64_t row, int64_t panel, int64_t lane, Vector even, Vector odd) {
  if (g.out_floats != nullptr) {
    float* out = g.out_floats + panel * g.out_pitch + row * kWidth + lane;
    *reinterpret_cast<Vector*>(out) = even;
    *reinterpret_cast<Vector*>(out + kWidth) = odd;
    return;
  }
  const Halves low = rounded(even);
  const Halves high = rounded(odd);
  *reinterpret_cast<Words*>(g.out + panel * g.out_pitch + row / 2 * kWidth + lane) = paired(low, high);
  if (g.out_columns == nullptr) return;
  uint32_t* columns = g.out_columns + panel * g.out_pitch + row * kPairsAcross + lane / 2;
  *reinterpret_cast<Halves*>(columns) = low;
  *reinterpret_cast<Halves*>(columns + kPairsAcross) = high;
}

// Computes kRows × kVectors·kLanes elements of the block over the whole depth at once. A panel of words streams from
// the second-level cache fast enough, and no partial sum has to be stored, which would take more than bfloat16.
template <int kVectors, bool kTransposed>
void gemm_tile(const PairBlock& g, int64_t row, int64_t panel) {
  Vector sum[kRows][kVectors] = {};
  const uint32_t* b = g.b + panel * g.b_pitch;
  if (kTransposed) {
    const uint32_t* a = g.a + row / kWidth * g.a_pitch + row % kWidth;
#pragma GCC unroll 4
    for (int64_t k = 0; k < g.depth; ++k, a += kWidth, b += kWidth) {
      __builtin_prefetch(a + 8 * kWidth);  // rows lie too far apart for the processor to prefetch them by itself
      add_outer_product<kVectors, 1>(sum, a, b);
    }
  } else {
    for (int64_t k = 0; k < g.depth; k += kPairsAcross) {
      const uint32_t* a = g.a + k / kPairsAcross * g.a_pitch + row * kPairsAcross;
      const uint32_t* end = a + std::min(g.depth - k, kPairsAcross);
#pragma GCC unroll 4
      for (; a < end; ++a, b += kWidth) add_outer_product<kVectors, kPairsAcross>(sum, a, b);
    }
  }
  const Vector alpha = broadcast(g.alpha);
  const Vector beta = broadcast(g.beta);
  // Unrolled, because GCC keeps an array in memory over a loop that it does not unroll.
#pragma GCC unroll 4
  for (int r = 0; r < kRows; r += 2) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      Vector even = alpha * sum[r][v];
      Vector odd = alpha * sum[r + 1][v];
      if (g.beta != 0) {
        const uint32_t* at = g.c + panel * g.c_pitch + (row + r) / 2 * kWidth + v * kLanes;
        const Words c = *reinterpret_cast<const Words*>(at);
        even = multiply_add(beta, lower(c), even);
        odd = multiply_add(beta, upper(c), odd);
      }
      store(g, row + r, panel, v * kLanes, even, odd);
    }
  }
}

template <bool kTransposed>
void gemm_tile(const PairBlock& g, int vectors, int64_t row, int64_t panel) {
  switch (vectors) {
    case 1: return gemm_tile<1, kTransposed>(g, row, panel);
    case 2: return gemm_tile<2, kTransposed>(g, row, panel);
    default: return gemm_tile<3, kTransposed>(g, row, panel);
  }
}

// Copies squares of kLanes × kLanes from below the diagonal to their places above it. Squares on the diagonal are
// complete already: a and b are one operand, so their sums are the same either way round. The rows of a square that lie
// beyond the block become columns of padding.
void mirror_pairs(const PairBlock& g) {
  const int64_t end_row = g.at.row0 + g.at.rows;
  const int64_t end_column = g.at.column0 + g.at.columns;
  for (int64_t row = g.at.row0; row < end_row; row += kLanes) {
    for (int64_t column = g.at.column0; column < std::min(row, end_column); column += kLanes) {
      const uint32_t* from = g.out + column / kWidth * g.out_pitch + row / 2 * kWidth + column % kWidth;
      Vector x[kLanes] = {};
#pragma GCC unroll 8
      for (int i = 0; i < kLanes / 2; ++i) {
        if (row + 2 * i >= end_row) break;
        const Words words = *reinterpret_cast<const Words*>(from + i * kWidth);
        x[2 * i] = lower(words);
        x[2 * i + 1] = upper(words);
      }
      exchange_rows<kLanes / 2>(x);
      uint32_t* to = g.out + row / kWidth * g.out_pitch + column / 2 * kWidth + row % kWidth;
#pragma GCC unroll 8
      for (int i = 0; i < kLanes / 2; ++i) {
        *reinterpret_cast<Words*>(to + i * kWidth) = (Words)x[2 * i] >> 16 | (Words)x[2 * i + 1];
      }
    }
  }
}

template <bool kTransposed>
void gemm_block(const PairBlock& g) {
  for (int64_t column = g.at.column0; column < g.at.column0 + g.at.columns; column += kWidth) {
    const int64_t panel_end = std::min(g.at.column0 + g.at.columns, column + kWidth);
    for (int64_t row = g.at.row0; row < g.at.row0 + g.at.rows; row += kRows) {
      const int64_t end = g.symmetric ? std::min(row + kRows, panel_end) : panel_end;
      if (end > column) gemm_tile<kTransposed>(g, int((end - column + kLanes - 1) / kLanes), row, column / kWidth);
    }
  }
  if (!g.symmetric) return;
  if (g.out_floats == nullptr) {
    mirror_pairs(g);
  } else {
    mirror(g.out_floats, g.out_pitch, g.at.row0, g.at.rows, g.at.column0, g.at.columns);
  }
}

void gemm_block(const PairBlock& g) { g.transposed ? gemm_block<true>(g) : gemm_block<false>(g); }

void narrow(const float* in, int64_t rows, uint32_t* out, uint32_t* out_columns) {
  PairBlock target{};
  target.out = out;
  target.out_columns = out_columns;
  for (int64_t row = 0; row < rows; row += 2) {
    for (int64_t lane = 0; lane < kWidth; lane += kLanes) {
      const float* from = in + row * kWidth + lane;
      Vector even, odd;
      __builtin_memcpy(&even, from, sizeof even);
      __builtin_memcpy(&odd, from + kWidth, sizeof odd);
      store(target, row, 0, lane, even, odd);
    }
  }
}

void widen(const uint32_t* in, int64_t rows, float* out) {
  for (int64_t row = 0; row < rows; row += 2) {
    for (int64_t lane = 0; lane < kWidth; lane += kLanes) {
      const Words words = *reinterpret_cast<const Words*>(in + row / 2 * kWidth + lane);
      const Vector even = lower(words);
      const Vector odd = upper(words);
      __builtin_memcpy(out + row * kWidth + lane, &even, sizeof even);
      __builtin_memcpy(out + (row + 1) * kWidth + lane, &odd, sizeof odd);
    }
  }
}

double multiply_adds(int64_t rounds) {
  Vector sum[kRows][3];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < 3; ++v) sum[r][v] = broadcast(float(3 * r + v));  // all different, so that all are computed
  }
  const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00);  // 0.5 in every value
  for (int64_t i = 0; i < rounds; ++i) {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 3; ++v) sum[r][v] = (Vector)_mm512_dpbf16_ps((__m512)sum[r][v], x, x);
    }
  }
  volatile float sink = 0;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < 3; ++v) sink = sink + sum[r][v][0];
  }
  return 4.0 * double(rounds) * kRows * kWidth;
}

}  // namespace avx512bf16

const Kernels* avx512_bf16_kernels() {
  const Kernels* floats = avx512_kernels();
  if (floats == nullptr || !__builtin_cpu_supports("avx512bf16")) return nullptr;
  using namespace avx512bf16;
  static const PairKernels pairs{
      .gemm_block = gemm_block, .narrow = narrow, .widen = widen, .multiply_adds = multiply_adds};
  static const Kernels kernels = [](Kernels all) {
    all.name = "avx512bf16";
    all.pairs = &pairs;
    return all;
  }(*floats);
  return &kernels;
}

}  // namespace root_optimizer::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer::cpu {
const Kernels* avx512_bf16_kernels() { return nullptr; }
}  // namespace root_optimizer::cpu
#endif
