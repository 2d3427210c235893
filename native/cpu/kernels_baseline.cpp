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

#include "baseline.inc"

#if defined(__aarch64__)
constexpr const char* kName = "neon";
#else
constexpr const char* kName = "baseline";
#endif
constexpr int kPanelVectors = 3;
constexpr int kRows = 4;

#include "kernels.inc"

}  // namespace baseline

const Kernels* baseline_kernels() { return &baseline::kernels; }

}  // namespace root_optimizer::cpu
