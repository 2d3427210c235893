#pragma once

// The formulas that must give the same bits on every device. The CPU's files and the kernels compile this one text,
// without contraction: each product and each sum rounds once.

#include <math.h>

#include <cstdint>
#include <cstring>

#include "batch.h"

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace root_optimizer {

/// A step takes factor · clamp(G, −limit, limit) for G. As it stands here it takes G.
struct GradientClip {
  double threshold = 0;  ///< ε_G
  float limit = HUGE_VALF;
  float factor = 1;  ///< f
};

HOST_DEVICE inline float clipped(float g, const GradientClip& clip) {
  const float kept = g < -clip.limit ? -clip.limit : g;
  return clip.factor * (kept > clip.limit ? clip.limit : kept);
}

HOST_DEVICE inline float next_momentum(float m, float g, float mu) { return mu * m + g; }

/// U with `nesterov`. `m` is the M that the step has updated.
HOST_DEVICE inline float look_ahead(float m, float g, float mu) { return g + mu * m; }

HOST_DEVICE inline float next_exp_avg(float exp_avg, float g, const AdamWScalars& s) {
  return exp_avg + (g - exp_avg) * s.beta1_complement;
}

HOST_DEVICE inline float next_exp_avg_sq(float exp_avg_sq, float g, const AdamWScalars& s) {
  return exp_avg_sq * s.beta2 + s.beta2_complement * g * g;
}

/// Whether AdamW changes θ at all. If not, θ must not be written: θ − 0·x can turn −0 into 0.
HOST_DEVICE inline bool changes_data(const AdamWScalars& s) { return s.decay != 1 || s.step_size != 0; }

/// The factor on θ in an update along x: with `cautious`, elements decay only where θ and x have one sign.
HOST_DEVICE inline float decay_of(float theta, float x, float decay, bool cautious) {
  return cautious && !(theta * x >= 0) ? 1 : decay;
}

HOST_DEVICE inline float next_data(float data, float exp_avg, float exp_avg_sq, const AdamWScalars& s) {
  const float direction = exp_avg / (sqrtf(exp_avg_sq) / s.correction2_root + s.eps);
  return data * decay_of(data, direction, s.decay, s.cautious) - s.step_size * direction;
}

struct Split {
  float base;
  float outlier;
};

/// By reference, from which compilers make one instruction without branches.
HOST_DEVICE inline float smaller(const float& a, const float& b) { return b < a ? b : a; }

/// The soft threshold of one element: base + outlier is x, bit for bit.
HOST_DEVICE inline Split soft_threshold(float x, float threshold) {
  Split split;
  split.base = copysignf(smaller(fabsf(x), threshold), x);
  split.outlier = copysignf(x - split.base, x);  // both parts of −0 are −0, and so is their sum
  // x − ε can fall halfway between two floats. No rounding of it then adds up to an odd x: take the larger float.
  if (split.base + split.outlier != x) {
    split.outlier = nextafterf(split.outlier, x);
    split.base = x - split.outlier;
  }
  return split;
}

/// |u| as an integer. The bits of a float without its sign have the same order as its magnitude.
HOST_DEVICE inline uint32_t key_of(float u) {
  uint32_t bits;
  memcpy(&bits, &u, sizeof bits);
  return bits & 0x7fffffffu;
}

HOST_DEVICE inline float magnitude_of(uint32_t key) {
  float magnitude;
  memcpy(&magnitude, &key, sizeof magnitude);
  return magnitude;
}

/// Keys from `floor` on, `width` of them.
struct KeyRange {
  uint32_t floor;
  uint32_t width;
};

/// The keys among which a step first looks for a quantile: an eighth of the last quantile to either side. Keys inside
/// cost more than others, and a quantile that is missed costs a few more passes. In training one of 17 is missed; with
/// half the reach it is one of 4. The reach must not depend on anything that a checkpoint lacks: sums of squares depend
/// on it, and a resumed run has to give the same bits. Empty if the last quantile is unknown or near the ends of
/// float32.
HOST_DEVICE inline KeyRange keys_near(double last) {
  constexpr double kReach = 1.0 / 8;
  if (!(last >= 2 * 1.17549435e-38 && last <= 3.402823466e38 / 2)) return {0, 0};
  const uint32_t floor = key_of(float(last * (1 - kReach)));
  return {floor, key_of(float(last * (1 + kReach))) - floor};
}

/// Where a quantile lies among `size` sorted values: between those of ranks `low` and `high`.
struct Position {
  double exact;
  int64_t low;
  int64_t high;

  HOST_DEVICE Position(int64_t size, double quantile) : exact(double(size - 1) * quantile), low(int64_t(exact)) {
    if (low > size - 1) low = size - 1;
    high = low + 1 < size ? low + 1 : low;
  }

  /// numpy's interpolation, which is exact at both ends.
  HOST_DEVICE double between(float at_low, float at_high) const {
    const double t = exact - double(low);
    const double gap = double(at_high) - double(at_low);
    return t < 0.5 ? double(at_low) + gap * t : double(at_high) - gap * (1 - t);
  }
};

/// Whether e stands for thresholds at all. One that is too small for a normal float32 could never grow again.
HOST_DEVICE inline bool is_mean(double e) { return e >= 1.17549435e-38; }

/// f, for a threshold ε_G and the mean e of those before it; 1 if there is none of either.
HOST_DEVICE inline double growth_factor(double threshold, double mean, double growth) {
  if (float(threshold) == 0 || !is_mean(mean)) return 1;
  const double factor = growth * mean / threshold;
  return factor < 1 ? factor : 1;
}

/// e after a step. The first threshold is its own mean, and a threshold of 0 leaves the mean as it is.
HOST_DEVICE inline double next_gradient_scale(double mean, double threshold, double growth) {
  if (float(threshold) == 0) return mean;
  return !is_mean(mean) ? threshold : 0.9 * mean + 0.1 * growth_factor(threshold, mean, growth) * threshold;
}

/// The bound of the clamp for a threshold: infinite if the threshold is 0 as a float32.
HOST_DEVICE inline float clip_limit(double threshold) {
  const float limit = float(threshold);
  return limit == 0 ? HUGE_VALF : limit;
}

/// The clip of a gradient whose threshold is known; `mean` is e.
HOST_DEVICE inline GradientClip gradient_clip(double threshold, double mean, double growth) {
  GradientClip clip;
  clip.threshold = threshold;
  clip.limit = clip_limit(threshold);
  clip.factor = float(growth_factor(threshold, mean, growth));
  return clip;
}

}  // namespace root_optimizer
