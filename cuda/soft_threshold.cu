// base ← clamp(U, −ε, ε) and outliers ← U − base, such that they add up to U bit for bit.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer {

namespace {

__global__ void soft_threshold_kernel(const __grid_constant__ Table<Item> items, int64_t size, bool nesterov,
                                      float* base, float* outliers) {
  const Item& item = items.entries[0];
  const LookAhead look_ahead(item, nesterov);
  const float limit = float(*item.threshold);
  const bool whole_words = aligned(base) && aligned(outliers);
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad u = look_ahead.quad(i, count);
    Quad kept;
    Quad rest;
    for (int e = 0; e < 4; ++e) {
      const float x = u.v[e];
      kept.v[e] = copysignf(min(fabsf(x), limit), x);
      rest.v[e] = copysignf(x - kept.v[e], x);  // of −0 both parts are −0, and so is their sum
      // x − ε can fall halfway between two floats, and then no rounding of it adds up to an odd x again: take the
      // larger one.
      if (kept.v[e] + rest.v[e] != x) {
        rest.v[e] = nextafterf(rest.v[e], x);
        kept.v[e] = x - rest.v[e];
      }
    }
    store_quad(base, i, count, whole_words, kept);
    store_quad(outliers, i, count, whole_words, rest);
  });
}

}  // namespace

void CudaQueue::soft_threshold(const Batch& batch, float* base, float* outliers) {
  launch("soft_threshold", soft_threshold_kernel, pass_grid(batch.size(), 1), kPassThreads, 0, stream_,
         table_of(batch.items), batch.size(), batch.nesterov, base, outliers);
}

}  // namespace root_optimizer
