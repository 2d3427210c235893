#include "tensor_core.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "device.h"

namespace emulator {

namespace {

/// How a generation adds: Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores", arXiv 2512.07004, and the
/// models at github.com/north-numerical-computing/MATLAB-tensor-core (A100TC.m, H100TC.m). Before them: Fasi et al.
/// 2021, doi 10.7717/peerj-cs.330, and arXiv 2403.00232.
struct Generation {
  int block;       ///< products that are added at once
  int extra_bits;  ///< that addends keep beyond the 24 of a float32
};
constexpr Generation kAmpere{8, 1};
constexpr Generation kHopper{16, 2};

constexpr int kZero = -1000;  // the exponent of a zero: nothing is aligned to it

int exponent_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffff) == 0 ? kZero : int(bits >> 23 & 0xff) - 127;
}

double power_of_2(int64_t exponent) {
  const uint64_t bits = uint64_t(exponent + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

/// Cuts a double to the bits of a float32. Results below the normal range are rounded.
float cut(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= ~uint64_t(0) << 29;
  memcpy(&x, &bits, sizeof x);
  return float(x);
}

template <int kColumns>
void add_block(float* d, const float* a, const float* b, int block, int extra_bits) {
  int exponents[kColumns];
  for (int j = 0; j < kColumns; ++j) exponents[j] = exponent_of(d[j]);
  for (int k = 0; k < block; ++k) {
    const int own = exponent_of(a[k]);
    for (int j = 0; j < kColumns; ++j) exponents[j] = std::max(exponents[j], own + exponent_of(b[k * kColumns + j]));
  }
  double scale[kColumns], sum[kColumns];
  for (int j = 0; j < kColumns; ++j) {
    exponents[j] = std::max(exponents[j], -300) - 23 - extra_bits;  // of the last bit that is kept
    scale[j] = power_of_2(-exponents[j]);
    sum[j] = std::trunc(double(d[j]) * scale[j]);
  }
  for (int k = 0; k < block; ++k) {
    const double factor = a[k];
    for (int j = 0; j < kColumns; ++j) sum[j] += std::trunc(factor * double(b[k * kColumns + j]) * scale[j]);
  }
  for (int j = 0; j < kColumns; ++j) d[j] = cut(sum[j] * power_of_2(exponents[j]));
}

}  // namespace

template <int kColumns>
void accumulate_row(float* d, const float* a, const float* b) {
  const Settings& settings = state().settings;
  if (settings.rounded_sums) {
    for (int k = 0; k < kProductDepth; ++k) {
      for (int j = 0; j < kColumns; ++j) d[j] += a[k] * b[k * kColumns + j];
    }
    return;
  }
  const Generation generation = settings.major >= 9 ? kHopper : kAmpere;
  for (int k = 0; k < kProductDepth; k += generation.block) {
    add_block<kColumns>(d, a + k, b + k * kColumns, generation.block, generation.extra_bits);
  }
}

template void accumulate_row<8>(float*, const float*, const float*);
template void accumulate_row<128>(float*, const float*, const float*);

}  // namespace emulator
