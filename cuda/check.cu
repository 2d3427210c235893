// Checks whether M ← μM + G and the U made of it, or AdamW's moments, would stay finite. Raises flags, and notes what
// the update needs to know: the clips of gradients, ε and ‖B‖.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void check_moments(const Moments* list, const Share* shares, const CheckNote* notes) {
  const Share share = shares[blockIdx.x];
  const Moments& p = list[share.entry];
  const AdamWScalars s = *p.scalars;
  const GradientClip clip = p.thresholds == nullptr ? GradientClip{} : notes[p.index].gradient;
  const bool whole_words = aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  bool bad = false;
  for_each_quad(p.size, share, [&](int64_t i, int count) {
    const Quad g = load_quad(p.gradient, i, count, whole_words);
    const Quad average = load_quad(p.exp_avg, i, count, whole_words);
    const Quad square = load_quad(p.exp_avg_sq, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      const float kept = clipped(g.v[e], clip);
      bad |= not_finite(next_exp_avg(average.v[e], kept, s)) | not_finite(next_exp_avg_sq(square.v[e], kept, s));
    }
  });
  if (bad) *p.flag = 1;
}

CudaQueue::MomentsPass CudaQueue::pass_over(std::span<const Moments> moments) {
  std::vector<unsigned> blocks;
  for (const Moments& one : moments) blocks.push_back(pass_blocks(one.size));
  const std::vector<Share> shares = shares_of(blocks);
  return {.list = tables_.put(std::vector<Moments>(moments.begin(), moments.end())),
          .shares = tables_.put(shares),
          .blocks = unsigned(shares.size())};
}

void CudaQueue::check(std::span<const Batch> batches, std::span<const Moments> moments) {
  find_gradient_clips(batches, moments);
  if (!batches.empty()) find_clips(batches);
  if (moments.empty()) return;
  const auto [list, shares, blocks] = pass_over(moments);
  launch("check_moments", check_moments, blocks, kPassThreads, 0, stream_, list, shares, notes_);
}

}  // namespace root_optimizer::cuda
