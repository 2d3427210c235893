// torch.optim.AdamW over a list of parameters, and before it whether their moments would stay finite.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer {

namespace {

__device__ float next_exp_avg(float exp_avg, float g, const AdamWScalars& s) {
  return exp_avg + (g - exp_avg) * s.beta1_complement;
}

__device__ float next_exp_avg_sq(float exp_avg_sq, float g, const AdamWScalars& s) {
  return exp_avg_sq * s.beta2 + s.beta2_complement * g * g;
}

__global__ void check_moments_kernel(const __grid_constant__ Table<Moments> list) {
  const Moments& p = list.entries[blockIdx.y];
  const AdamWScalars s = *p.scalars;
  const bool whole_words = aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  bool bad = false;
  for_each_quad(p.size, [&](int64_t i, int count) {
    const Quad g = load_quad(p.gradient, i, count, whole_words);
    const Quad average = load_quad(p.exp_avg, i, count, whole_words);
    const Quad square = load_quad(p.exp_avg_sq, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      bad |= not_finite(next_exp_avg(average.v[e], g.v[e], s)) | not_finite(next_exp_avg_sq(square.v[e], g.v[e], s));
    }
  });
  if (bad) *p.flag = 1;
}

__global__ void __launch_bounds__(kPassThreads, 5)
    adamw_kernel(const __grid_constant__ Table<Moments> list, const uint32_t* gate) {
  if (*gate != 0) return;
  const Moments& p = list.entries[blockIdx.y];
  const AdamWScalars s = *p.scalars;
  const bool still = s.decay == 1 && s.step_size == 0;  // −0 − 0·x may be 0: to change nothing, do nothing
  const bool whole_words = aligned(p.data) && aligned(p.gradient) && aligned(p.exp_avg) && aligned(p.exp_avg_sq);
  for_each_quad(p.size, [&](int64_t i, int count) {
    const Quad g = load_quad(p.gradient, i, count, whole_words);
    Quad average = load_quad(p.exp_avg, i, count, whole_words);
    Quad square = load_quad(p.exp_avg_sq, i, count, whole_words);
    Quad data = load_quad(p.data, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      average.v[e] = next_exp_avg(average.v[e], g.v[e], s);
      square.v[e] = next_exp_avg_sq(square.v[e], g.v[e], s);
      data.v[e] =
          data.v[e] * s.decay - s.step_size * (average.v[e] / (sqrtf(square.v[e]) / s.correction2_root + s.eps));
    }
    store_quad(p.exp_avg, i, count, whole_words, average);
    store_quad(p.exp_avg_sq, i, count, whole_words, square);
    if (!still) store_quad(p.data, i, count, whole_words, data);
  });
}

dim3 grid_of(const std::vector<Moments>& moments) {
  int64_t largest = 0;
  for (const Moments& one : moments) largest = std::max(largest, one.size);
  return pass_grid(largest, moments.size());
}

}  // namespace

void CudaQueue::check_moments(const std::vector<Moments>& moments) {
  launch("check_moments", check_moments_kernel, grid_of(moments), kPassThreads, 0, stream_, table_of(moments));
}

void CudaQueue::adamw(const std::vector<Moments>& moments) {
  launch("adamw", adamw_kernel, grid_of(moments), kPassThreads, 0, stream_, table_of(moments), gate_);
}

}  // namespace root_optimizer
