#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace root_optimizer::cpu {
namespace baseline {

typedef float Vector __attribute__((vector_size(16)));
typedef int32_t Keys __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kRows = 4;

KERNEL_INLINE Vector broadcast(float x) { return Vector{x, x, x, x}; }

#if defined(__aarch64__)
constexpr const char* kName = "neon";
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) {
  return (Vector)vfmaq_f32((float32x4_t)z, (float32x4_t)x, (float32x4_t)y);
}
#else
constexpr const char* kName = "baseline";
KERNEL_INLINE Vector multiply_add(Vector x, Vector y, Vector z) { return x * y + z; }
#endif

KERNEL_INLINE bool none(Keys mask) {
  int64_t halves[2];
  __builtin_memcpy(halves, &mask, sizeof halves);
  return (halves[0] | halves[1]) == 0;
}

#include "kernels.inc"

}  // namespace baseline

const Kernels* baseline_kernels() { return &baseline::kernels; }

}  // namespace root_optimizer::cpu
