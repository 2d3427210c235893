#include <cmath>
#include <limits>

#include "queue.h"

namespace root_optimizer {

namespace {

inline float next_exp_avg(float exp_avg, float g, const AdamWScalars& s) {
  return exp_avg + (g - exp_avg) * s.beta1_complement;
}

inline float next_exp_avg_sq(float exp_avg_sq, float g, const AdamWScalars& s) {
  return exp_avg_sq * s.beta2 + s.beta2_complement * g * g;
}

}  // namespace

void CpuQueue::check_moments(const std::vector<Moments>& moments) {
  const Moments& p = moments.front();
  const AdamWScalars s = *p.scalars;
  for_ranges(p.size, kPassGrain, [&](int64_t begin, int64_t end) {
    constexpr float kMax = std::numeric_limits<float>::max();
    uint32_t bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float average = next_exp_avg(p.exp_avg[i], p.gradient[i], s);
      const float square = next_exp_avg_sq(p.exp_avg_sq[i], p.gradient[i], s);
      bad |= uint32_t(!(std::fabs(average) <= kMax)) | uint32_t(!(square <= kMax));
    }
    if (bad != 0) __atomic_store_n(p.flag, 1, __ATOMIC_RELAXED);
  });
}

void CpuQueue::adamw(const std::vector<Moments>& moments) {
  const Moments& p = moments.front();
  const AdamWScalars s = *p.scalars;
  const bool still = s.decay == 1 && s.step_size == 0;  // −0 − 0·x may be 0: to change nothing, do nothing
  for_ranges(p.size, kPassGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float average = next_exp_avg(p.exp_avg[i], p.gradient[i], s);
      const float square = next_exp_avg_sq(p.exp_avg_sq[i], p.gradient[i], s);
      p.exp_avg[i] = average;
      p.exp_avg_sq[i] = square;
      if (still) continue;
      p.data[i] = p.data[i] * s.decay - s.step_size * (average / (std::sqrt(square) / s.correction2_root + s.eps));
    }
  });
}

}  // namespace root_optimizer
