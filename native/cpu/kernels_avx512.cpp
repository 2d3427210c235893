#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Pragmas rather than a compiler flag, so that neither build system needs flags for single files.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
#endif

namespace root_optimizer {
namespace {

typedef float Vector __attribute__((vector_size(64)));
constexpr int kLanes = 16;
constexpr int kRows = 8;

KERNEL_INLINE Vector broadcast(float x) { return (Vector)_mm512_set1_ps(x); }
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
}

#define OWN_KEYS_INSIDE
KERNEL_INLINE int64_t keys_inside(const float* u, int64_t length, uint32_t floor, uint32_t width, uint32_t* keys) {
  const __m512i floors = _mm512_set1_epi32(int(floor));
  const __m512i widths = _mm512_set1_epi32(int(width));
  int64_t found = 0;
  for (int64_t i = 0; i < length; i += kLanes) {
    const __mmask16 present = length - i < kLanes ? __mmask16((1 << (length - i)) - 1) : __mmask16(0xffff);
    const __m512i key = _mm512_maskz_loadu_epi32(present, u + i);
    const __mmask16 inside = _mm512_mask_cmple_epu32_mask(present, _mm512_sub_epi32(key, floors), widths);
    const int count = __builtin_popcount(inside);
    // In a register first: straight to memory, Zen 4 takes over a hundred cycles for it.
    _mm512_mask_storeu_epi32(keys + found, __mmask16((1u << count) - 1), _mm512_maskz_compress_epi32(inside, key));
    found += count;
  }
  return found;
}

#include "kernels.inc"

}  // namespace

const Kernels* avx512_kernels() {
  static const Kernels kernels{"avx512",       kWidth,    kRows,      gemm_block, transpose, clipped_squares,
                               clip_and_scale, overflows, accumulate, advance,    update,    spin};
  const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("fma");
  return supported ? &kernels : nullptr;
}

}  // namespace root_optimizer

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace root_optimizer
#endif
