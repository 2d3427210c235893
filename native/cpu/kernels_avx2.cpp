#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Pragmas rather than a compiler flag, so that neither build system needs flags for single files.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace root_optimizer {
namespace {

typedef float Vector __attribute__((vector_size(32)));
constexpr int kLanes = 8;
constexpr int kRows = 4;

KERNEL_INLINE Vector broadcast(float x) { return (Vector)_mm256_set1_ps(x); }
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
}

#include "kernels.inc"

}  // namespace

const Kernels* avx2_kernels() {
  static const Kernels kernels{"avx2",         kWidth,    kRows,      gemm_block, transpose, clipped_squares,
                               clip_and_scale, overflows, accumulate, advance,    update,    spin};
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernels : nullptr;
}

}  // namespace root_optimizer

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace root_optimizer
#endif
