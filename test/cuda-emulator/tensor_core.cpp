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

using Floats = float __attribute__((vector_size(4 * kPanelColumns)));
using Ints = int32_t __attribute__((vector_size(4 * kPanelColumns)));
using Doubles = double __attribute__((vector_size(8 * kPanelColumns)));
using Longs = int64_t __attribute__((vector_size(8 * kPanelColumns)));

template <typename To, typename From>
To vector_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

Floats load(const float* from) {
  Floats values;
  memcpy(&values, from, sizeof values);
  return values;
}

Ints exponents_of(Floats x) {
  const Ints magnitude = vector_bits<Ints>(x) & 0x7fffffff;
  return magnitude == 0 ? Ints{} + kZero : (magnitude >> 23) - 127;
}

Floats powers_of_2(Ints exponents) { return vector_bits<Floats>((exponents + 127) << 23); }

/// Whether a comparison holds in a lane.
bool any(Ints lanes) {
  using Words = uint64_t __attribute__((vector_size(4 * kPanelColumns)));
  const Words words = vector_bits<Words>(lanes);
  uint64_t found = 0;
  for (size_t i = 0; i < sizeof words / 8; ++i) found |= words[i];
  return found != 0;
}

/// A panel of b: its columns in lanes.
struct Panel {
  Floats values[kProductDepth];
  Ints exponents[kProductDepth];
  bool is_finite = true, is_zero = true;

  explicit Panel(const float (*b)[kPanelColumns]) {
    for (int k = 0; k < kProductDepth; ++k) {
      values[k] = load(b[k]);
      exponents[k] = exponents_of(values[k]);
      if (any(exponents[k] > 127)) is_finite = false;
      if (any(exponents[k] != kZero)) is_zero = false;
    }
  }
};

/// Adds a block in float64, whatever its values are.
template <Generation generation>
void add_any_block(float* d, const float* a, const Floats* b) {
  for (int j = 0; j < kPanelColumns; ++j) {
    int exponent = exponent_of(d[j]);
    for (int k = 0; k < generation.block; ++k) exponent = std::max(exponent, exponent_of(a[k]) + exponent_of(b[k][j]));
    exponent = std::max(exponent, -300) - 23 - generation.extra_bits;  // of the last bit that is kept
    const double scale = power_of_2(-exponent);
    double sum = std::trunc(double(d[j]) * scale);
    for (int k = 0; k < generation.block; ++k) sum += std::trunc(double(a[k]) * double(b[k][j]) * scale);
    d[j] = cut(sum * power_of_2(exponent));
  }
}

// Between these exponents float32 holds products of 16-bit elements and what they are scaled by, as far as it is not
// cut off. The addends are integers below 2²⁷ then, so that int32 holds the sum of eight products and d.
constexpr int kLeast = -60, kLargest = 100;

/// Adds a block in integers; false, with d as it was, where its values do not allow that.
template <Generation generation>
bool add_block(float* d, const float* a, const int* a_exponents, const Floats* b, const Ints* b_exponents) {
  constexpr int kStep = 8;
  const Floats sums = load(d);
  Ints largest = exponents_of(sums);
  for (int k = 0; k < generation.block; ++k) {
    const Ints product = a_exponents[k] + b_exponents[k];
    largest = product > largest ? product : largest;
  }
  // Where all addends are 0, any scale will do. A sum of −0 keeps its sign in float64 only.
  const Ints is_zero = largest < kZero / 2;
  if (any((largest > kLargest) | ((largest < kLeast) & ~is_zero) | (vector_bits<Ints>(sums) == INT32_MIN)))
    return false;
  largest = is_zero ? Ints{} + kLeast : largest;
  const Ints last = largest - 23 - generation.extra_bits;  // of the last bit that is kept
  const Floats scale = powers_of_2(-last);
  Ints addends = __builtin_convertvector(sums * scale, Ints);
  Doubles total{};
  for (int first = 0; first < generation.block; first += kStep) {
    for (int k = first; k < first + kStep; ++k) addends += __builtin_convertvector(a[k] * b[k] * scale, Ints);
    total += __builtin_convertvector(addends, Doubles);
    addends = Ints{};
  }
  const Longs kept = vector_bits<Longs>(total) & ~int64_t(0) << 29;
  const Floats result = __builtin_convertvector(vector_bits<Doubles>(kept), Floats) * powers_of_2(last);
  memcpy(d, &result, sizeof result);
  return true;
}

/// Whether the sums stay as they are when zeros are added to them. A sum of −0 becomes 0.
bool are_kept(const float* d) {
  const Floats sums = load(d);
  return !any((exponents_of(sums) > 127) | (vector_bits<Ints>(sums) == INT32_MIN));
}

template <Generation generation>
void accumulate_cut(float (*d)[kPanelColumns], const float (*a)[kProductDepth], int rows,
                    const float (*b)[kPanelColumns], int panels) {
  int exponents[kMaxRows][kProductDepth];
  bool is_finite[kMaxRows], is_zero[kMaxRows];
  for (int row = 0; row < rows; ++row) {
    is_finite[row] = is_zero[row] = true;
    for (int k = 0; k < kProductDepth; ++k) {
      exponents[row][k] = exponent_of(a[row][k]);
      if (exponents[row][k] > 127) is_finite[row] = false;
      if (exponents[row][k] != kZero) is_zero[row] = false;
    }
  }
  for (int i = 0; i < panels; ++i, b += kProductDepth, d += rows) {
    const Panel panel(b);
    for (int row = 0; row < rows; ++row) {
      const bool is_regular = panel.is_finite && is_finite[row];
      // Much of a tile lies beyond the edges of a small matrix.
      if (is_regular && (panel.is_zero || is_zero[row]) && are_kept(d[row])) continue;
      for (int k = 0; k < kProductDepth; k += generation.block) {
        if (is_regular &&
            add_block<generation>(d[row], a[row] + k, exponents[row] + k, panel.values + k, panel.exponents + k)) {
          continue;
        }
        add_any_block<generation>(d[row], a[row] + k, panel.values + k);
      }
    }
  }
}

/// Adds one product after another, each sum rounded to nearest.
void accumulate_rounded(float (*d)[kPanelColumns], const float (*a)[kProductDepth], int rows,
                        const float (*b)[kPanelColumns], int panels) {
  for (int i = 0; i < panels; ++i, b += kProductDepth, d += rows) {
    for (int row = 0; row < rows; ++row) {
      for (int k = 0; k < kProductDepth; ++k) {
        for (int j = 0; j < kPanelColumns; ++j) d[row][j] += a[row][k] * b[k][j];
      }
    }
  }
}

}  // namespace

void accumulate(float (*d)[kPanelColumns], const float (*a)[kProductDepth], int rows, const float (*b)[kPanelColumns],
                int panels) {
  const Settings& settings = state().settings;
  const auto add = settings.rounded_sums ? accumulate_rounded
                   : settings.major >= 9 ? accumulate_cut<kHopper>
                                         : accumulate_cut<kAmpere>;
  add(d, a, rows, b, panels);
}

}  // namespace emulator
