// base ← clamp(U, −ε, ε) and outliers ← U − base, such that they add up to U bit for bit.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void soft_threshold_kernel(const __grid_constant__ Table<Matrix> matrices, int64_t size,
                                      const Forming forming, float* base, float* outliers) {
  const Matrix& matrix = matrices.entries[0];
  const LookAhead u(matrix, forming);
  const float threshold = float(matrix.thresholds->threshold);
  const bool whole_words = aligned(base) && aligned(outliers);
  for_each_quad(size, [&](int64_t i, int count) {
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
  launch("soft_threshold", soft_threshold_kernel, pass_grid(batch), kPassThreads, 0, stream_, table_of(batch),
         batch.size(), forming(batch, notes_), base, outliers);
}

}  // namespace root_optimizer::cuda
