#include <algorithm>
#include <cmath>

#include "queue.h"

namespace root_optimizer {

void CpuQueue::soft_threshold(const Batch& batch, float* base, float* outliers) {
  const LookAhead u = look_ahead(batch);
  const float limit = float(*only(batch).threshold);
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float x = u(i);
      float kept = std::copysign(std::min(std::fabs(x), limit), x);
      float outlier = std::copysign(x - kept, x);  // of −0 both parts are −0, and so is their sum
      // x − ε can fall halfway between two floats, and then no rounding of it adds up to an odd x again: take the
      // larger one.
      if (kept + outlier != x) {
        outlier = std::nextafter(outlier, x);
        kept = x - outlier;
      }
      base[i] = kept;
      outliers[i] = outlier;
    }
  });
}

}  // namespace root_optimizer
