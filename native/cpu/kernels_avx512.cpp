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

namespace root_optimizer::cpu {
namespace avx512 {

typedef float Vector __attribute__((vector_size(64)));
typedef int32_t Keys __attribute__((vector_size(64)));
constexpr const char* kName = "avx512";
constexpr int kLanes = 16;
constexpr int kRows = 8;

KERNEL_INLINE Vector broadcast(float x) { return (Vector)_mm512_set1_ps(x); }
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
}

#define OWN_APPEND
KERNEL_INLINE int64_t append(Keys key, Keys least, Keys most, uint32_t* keys) {
  const __mmask16 inside =
      _mm512_mask_cmple_epi32_mask(_mm512_cmpge_epi32_mask((__m512i)key, (__m512i)least), (__m512i)key, (__m512i)most);
  // Compresses into a register first: compressing straight to memory takes Zen 4 over a hundred cycles.
  _mm512_storeu_si512(keys, _mm512_maskz_compress_epi32(inside, (__m512i)key));
  return __builtin_popcount(inside);
}

#include "kernels.inc"

}  // namespace avx512

const Kernels* avx512_kernels() {
  const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("fma");
  return supported ? &avx512::kernels : nullptr;
}

}  // namespace root_optimizer::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer::cpu {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace root_optimizer::cpu
#endif
