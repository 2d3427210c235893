#include <cmath>
#include <limits>

#include "queue.h"

namespace root_optimizer {

namespace {

// True for infinities and NaN. An integer comparison that vectorises, unlike std::isfinite with its control flow.
inline uint32_t not_finite(float x) { return !(std::fabs(x) <= std::numeric_limits<float>::max()); }

}  // namespace

void CpuQueue::check_momentum(const Batch& batch) {
  const Item& item = only(batch);
  const float mu = item.gradient == nullptr ? 0 : item.scalars->mu;
  const bool nesterov = batch.nesterov;
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    uint32_t bad = 0;
    const float* m = item.momentum;
    const float* g = item.gradient;
    if (g == nullptr) {
      for (int64_t i = begin; i < end; ++i) bad |= not_finite(m[i]);
    } else {
      for (int64_t i = begin; i < end; ++i) {
        const float next = mu * m[i] + g[i];
        bad |= not_finite(nesterov ? g[i] + mu * next : next);
      }
    }
    if (bad != 0) __atomic_store_n(item.flag, 1, __ATOMIC_RELAXED);
  });
}

void CpuQueue::momentum(const Batch& batch) {
  const Item& item = only(batch);
  const float mu = item.scalars->mu;
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    float* m = item.momentum;
    const float* g = item.gradient;
    for (int64_t i = begin; i < end; ++i) m[i] = mu * m[i] + g[i];
  });
}

}  // namespace root_optimizer
