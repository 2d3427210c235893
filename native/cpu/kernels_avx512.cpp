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

#include "avx512.inc"

constexpr const char* kName = "avx512";
constexpr int kPanelVectors = 3;
constexpr int kRows = 8;

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
