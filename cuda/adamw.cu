// torch.optim.AdamW over a list of parameters.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void __launch_bounds__(kPassThreads, 5)
    adamw_kernel(const Moments* list, const Share* shares, const CheckNote* notes, const uint32_t* gate) {
  if (*gate != 0) return;
  const Share share = shares[blockIdx.x];
  const Moments& p = list[share.entry];
  const AdamWScalars s = *p.scalars;
  const bool clips = p.thresholds != nullptr;
  const GradientClip clip = clips ? notes[p.index].gradient : GradientClip{};
  if (clips && share.index == 0 && threadIdx.x == 0) remember(*p.thresholds, notes[p.index]);
  const bool whole_words = aligned(p.data) && aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  for_each_quad(p.size, share, [&](int64_t i, int count) {
    const Quad g = load_quad(p.gradient, i, count, whole_words);
    Quad average = load_quad(p.exp_avg, i, count, whole_words);
    Quad square = load_quad(p.exp_avg_sq, i, count, whole_words);
    Quad data = load_quad(p.data, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      const float kept = clipped(g.v[e], clip);
      average.v[e] = next_exp_avg(average.v[e], kept, s);
      square.v[e] = next_exp_avg_sq(square.v[e], kept, s);
      data.v[e] = next_data(data.v[e], average.v[e], square.v[e], s);
    }
    store_quad(p.exp_avg, i, count, whole_words, average);
    store_quad(p.exp_avg_sq, i, count, whole_words, square);
    if (changes_data(s)) store_quad(p.data, i, count, whole_words, data);
  });
}

void CudaQueue::adamw(std::span<const Moments> moments) {
  const auto [list, shares, blocks] = pass_over(moments);
  launch("adamw", adamw_kernel, blocks, kPassThreads, 0, stream_, list, shares, notes_, gate_);
}

}  // namespace root_optimizer::cuda
