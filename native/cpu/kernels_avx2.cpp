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

#include "avx2.inc"

constexpr const char* kName = "avx2";
constexpr int kPanelVectors = 3;
constexpr int kRows = 4;

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
