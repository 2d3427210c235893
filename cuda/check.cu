// M ← μM + G, and before it whether that would stay finite.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer {

namespace {

__global__ void check_momentum_kernel(const __grid_constant__ Table<Item> items, int64_t size, bool nesterov) {
  const Item& item = items.entries[blockIdx.y];
  const float* gradient = item.gradient;
  const float mu = gradient == nullptr ? 0 : item.scalars->mu;
  const bool whole_words = aligned(item.momentum) && aligned(gradient);
  bool bad = false;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad m = load_quad(item.momentum, i, count, whole_words);
    const Quad g = gradient == nullptr ? Quad{} : load_quad(gradient, i, count, whole_words);
    for (int e = 0; e < 4; ++e) {
      const float next = gradient == nullptr ? m.v[e] : mu * m.v[e] + g.v[e];
      bad |= not_finite(nesterov ? g.v[e] + mu * next : next);
    }
  });
  if (bad) *item.flag = 1;
}

__global__ void momentum_kernel(const __grid_constant__ Table<Item> items, int64_t size, const uint32_t* gate) {
  if (*gate != 0) return;
  const Item& item = items.entries[blockIdx.y];
  const float mu = item.scalars->mu;
  const bool whole_words = aligned(item.momentum) && aligned(item.gradient);
  for_each_quad(size, [&](int64_t i, int count) {
    Quad m = load_quad(item.momentum, i, count, whole_words);
    const Quad g = load_quad(item.gradient, i, count, whole_words);
    for (int e = 0; e < 4; ++e) m.v[e] = mu * m.v[e] + g.v[e];
    store_quad(item.momentum, i, count, whole_words, m);
  });
}

}  // namespace

void CudaQueue::check_momentum(const Batch& batch) {
  launch("check_momentum", check_momentum_kernel, pass_grid(batch.size(), batch.items.size()), kPassThreads, 0, stream_,
         table_of(batch.items), batch.size(), batch.nesterov);
}

void CudaQueue::momentum(const Batch& batch) {
  launch("momentum", momentum_kernel, pass_grid(batch.size(), batch.items.size()), kPassThreads, 0, stream_,
         table_of(batch.items), batch.size(), gate_);
}

}  // namespace root_optimizer
