#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Pragmas rather than a compiler flag, so that neither build system needs flags for single files.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")
#endif

namespace root_optimizer::cpu {
namespace avx2 {

typedef float Vector __attribute__((vector_size(32)));
typedef int32_t Keys __attribute__((vector_size(32)));
constexpr const char* kName = "avx2";
constexpr int kLanes = 8;
constexpr int kRows = 4;

KERNEL_INLINE Vector broadcast(float x) { return (Vector)_mm256_set1_ps(x); }
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
}

// For every set of lanes: their numbers, lowest first, a byte each.
struct Fronts {
  uint64_t of[1 << kLanes];

  constexpr Fronts() : of() {
    for (int set = 0; set < 1 << kLanes; ++set) {
      int shift = 0;
      for (uint64_t lane = 0; lane < kLanes; ++lane) {
        if (set >> lane & 1) {
          of[set] |= lane << shift;
          shift += 8;
        }
      }
    }
  }
};
constexpr Fronts kFronts;

#define OWN_APPEND
KERNEL_INLINE int64_t append(Keys key, Keys least, Keys most, uint32_t* keys) {
  const int inside = _mm256_movemask_ps((__m256)((key >= least) & (key <= most)));
  const __m256i front = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(kFronts.of[inside])));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys), _mm256_permutevar8x32_epi32((__m256i)key, front));
  return __builtin_popcount(unsigned(inside));
}

#include "kernels.inc"

}  // namespace avx2

const Kernels* avx2_kernels() {
  const bool supported =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
  return supported ? &avx2::kernels : nullptr;
}

}  // namespace root_optimizer::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer::cpu {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace root_optimizer::cpu
#endif
