// Checks whether M ← μM + G and the U made of it, or AdamW's moments, would stay finite. Raises flags, and notes what
// the update needs to know: the clips of gradients, ε and ‖B‖.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void check_moments_kernel(const __grid_constant__ Table<Moments> list, const CheckNote* notes) {
  const Moments& p = list.entries[blockIdx.y];
  const AdamWScalars s = *p.scalars;
  const GradientClip clip = p.thresholds == nullptr ? GradientClip{} : notes[p.index].gradient;
  const bool whole_words = aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  bool bad = false;
  for_each_quad(p.size, [&](int64_t i, int count) {
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

void CudaQueue::check_matrices(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    if (batch.clips_gradient) find_gradient_clips(batch);
    find_clips(batch);
  }
}

dim3 moments_grid(std::span<const Moments> moments) {
  int64_t largest = 0;
  for (const Moments& one : moments) largest = std::max(largest, one.size);
  return pass_grid(largest, int64_t(moments.size()));
}

void CudaQueue::check_moments(std::span<const Moments> moments) {
  find_gradient_clips(moments);
  launch("check_moments", check_moments_kernel, moments_grid(moments), kPassThreads, 0, stream_, table_of(moments),
         notes_);
}

}  // namespace root_optimizer::cuda
