#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::soft_threshold(const Batch& batch, float* base, float* outliers) {
  const LookAhead u = look_ahead_of(batch);
  const float threshold = float(only(batch).thresholds->threshold);
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Split split = root_optimizer::soft_threshold(u(i), threshold);
      base[i] = split.base;
      outliers[i] = split.outlier;
    }
  });
}

}  // namespace root_optimizer::cpu
