// base ← clamp(U, −ε, ε) and outliers ← U − base, such that they add up to U bit for bit.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void soft_threshold_kernel(const __grid_constant__ PassMatrix p, const CheckNote* notes, float* base,
                                      float* outliers) {
  const LookAhead u(p, notes);
  const float threshold = float(p.matrix.thresholds->threshold);
  const bool whole_words = aligned(base) && aligned(outliers);
  for_each_quad(p.size(), {0, blockIdx.x, gridDim.x}, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    Quad kept;
    Quad rest;
    for (int e = 0; e < 4; ++e) {
      const Split split = root_optimizer::soft_threshold(x.v[e], threshold);
      kept.v[e] = split.base;
      rest.v[e] = split.outlier;
    }
    store_quad(base, i, count, whole_words, kept);
    store_quad(outliers, i, count, whole_words, rest);
  });
}

void CudaQueue::soft_threshold(const Batch& batch, float* base, float* outliers) {
  launch("soft_threshold", soft_threshold_kernel, pass_blocks(batch.size()), kPassThreads, 0, stream_,
         pass_matrix(batch, batch.matrices[0]), notes_, base, outliers);
}

}  // namespace root_optimizer::cuda
