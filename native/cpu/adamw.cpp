#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::adamw(std::span<const Moments> moments) {
  for (const Moments& p : moments) {
    const AdamWScalars s = *p.scalars;
    for_ranges(p.size, kPassGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        p.exp_avg[i] = next_exp_avg(p.exp_avg[i], p.gradient[i], s);
        p.exp_avg_sq[i] = next_exp_avg_sq(p.exp_avg_sq[i], p.gradient[i], s);
        if (changes_data(s)) p.data[i] = next_data(p.data[i], p.exp_avg[i], p.exp_avg_sq[i], s);
      }
    });
  }
}

}  // namespace root_optimizer::cpu
