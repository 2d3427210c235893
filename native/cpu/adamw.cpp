#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::adamw(std::span<const Moments> moments) {
  for (const Moments& p : moments) {
    const AdamWScalars s = *p.scalars;
    const Clip& found = clips_[p.index];
    if (p.thresholds != nullptr) remember(*p.thresholds, found, s.gradient);
    const GradientClip clip = found.gradient;
    const bool changes = changes_data(s);
    for_ranges(p.size, kPassGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float g = clipped(p.gradient[i], clip);
        const float average = next_exp_avg(p.exp_avg[i], g, s);
        const float square = next_exp_avg_sq(p.exp_avg_sq[i], g, s);
        p.exp_avg[i] = average;
        p.exp_avg_sq[i] = square;
        if (changes) p.data[i] = next_data(p.data[i], average, square, s);
      }
    });
  }
}

}  // namespace root_optimizer::cpu
