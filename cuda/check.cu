// Checks whether M ← μM + G and the U made of it, or AdamW's moments, would stay finite. Raises flags, and notes the
// clips of gradients for the update.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void check_matrices_kernel(const __grid_constant__ Table<Matrix> matrices, int64_t size,
                                      const Forming forming) {
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const float* gradient = matrix.gradient;
  const GradientClip clip = clip_of(forming.notes, matrix.index);
  const float mu = gradient == nullptr ? 0 : matrix.scalars->mu;
  const bool whole_words = aligned(matrix.momentum) && aligned(gradient);
  bool bad = false;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad m = load_quad(matrix.momentum, i, count, whole_words);
    const Quad g = gradient == nullptr ? Quad{} : load_quad(gradient, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      const float kept = clipped(g.v[e], clip);
      const float next = gradient == nullptr ? m.v[e] : next_momentum(m.v[e], kept, mu);
      bad |= not_finite(forming.nesterov ? look_ahead(next, kept, mu) : next);
      bad |= not_finite(g.v[e]);  // a clip would hide an infinity
    }
  });
  if (bad) *matrix.flag = 1;
}

__global__ void check_moments_kernel(const __grid_constant__ Table<Moments> list, const GradientNote* notes) {
  const Moments& p = list.entries[blockIdx.y];
  const AdamWScalars s = *p.scalars;
  const GradientClip clip = clip_of(p.thresholds == nullptr ? nullptr : notes, p.index);
  const bool whole_words = aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  bool bad = false;
  for_each_quad(p.size, [&](int64_t i, int count) {
    const Quad g = load_quad(p.gradient, i, count, whole_words);
    const Quad average = load_quad(p.exp_avg, i, count, whole_words);
    const Quad square = load_quad(p.exp_avg_sq, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      const float kept = clipped(g.v[e], clip);
      bad |= not_finite(next_exp_avg(average.v[e], kept, s)) | not_finite(next_exp_avg_sq(square.v[e], kept, s));
      bad |= not_finite(g.v[e]);
    }
  });
  if (bad) *p.flag = 1;
}

void CudaQueue::check_matrices(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    if (batch.clips_gradient) find_gradient_clips(batch);
    launch("check_matrices", check_matrices_kernel, pass_grid(batch), kPassThreads, 0, stream_, table_of(batch),
           batch.size(), forming(batch, notes_));
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
