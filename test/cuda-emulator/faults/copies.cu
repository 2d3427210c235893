// Asynchronous copies into shared memory, and matrices loaded from it.

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

enum class Fault { none, no_wait, wait_for_too_few, no_barrier, misaligned, outside, refilled_too_early };

struct alignas(16) Chunk {
  float values[4];
};

constexpr int kThreads = 64;
constexpr int kStages = 3;

// Sums `depth` chunks a thread through a ring of stages; each thread reads what its neighbour has copied.
template <Fault kFault>
__global__ void pipeline(const Chunk* from, float* sums, int depth) {
  SHARED_ARRAY(Chunk, ring, kStages * kThreads);
  const int thread = int(threadIdx.x);
  const auto fetch = [&](int step) {
    const Chunk* source = from + step * kThreads + thread + (kFault == Fault::outside ? kThreads : 0);
    const char* address = reinterpret_cast<const char*>(source) + (kFault == Fault::misaligned ? 4 : 0);
    if (step < depth) copy_async_16(&ring[step % kStages * kThreads + thread], address, true);
    commit_copies();
  };
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  float sum = 0;
  for (int step = 0; step < depth; ++step) {
    if (kFault == Fault::wait_for_too_few) wait_copies<kStages - 1>();
    if (kFault != Fault::no_wait && kFault != Fault::wait_for_too_few) wait_copies<kStages - 2>();
    if (kFault != Fault::no_barrier) __syncthreads();
    if (kFault == Fault::refilled_too_early) {
      copy_async_16(&ring[step % kStages * kThreads + thread], from, true);
      commit_copies();
    }
    fetch(step + kStages - 1);
    sum += ring[step % kStages * kThreads + (thread + 1) % kThreads].values[0];
  }
  sums[thread] = sum;
}

template <Fault kFault>
bool adds_up(bool broken) {
  constexpr int kDepth = 7;
  std::vector<Chunk> chunks;
  for (int i = 0; i < kDepth * kThreads; ++i) chunks.push_back({{float(i), 0, 0, 0}});
  const Chunk* from = device_copy(chunks);
  float* sums = device_array<float>(kThreads);
  launch("pipeline", broken ? pipeline<kFault> : pipeline<Fault::none>, 1, kThreads, 0, nullptr, from, sums, kDepth);
  const std::vector<float> results = host_copy(sums, kThreads);
  for (int thread = 0; thread < kThreads; ++thread) {
    float expected = 0;
    for (int step = 0; step < kDepth; ++step) expected += float(step * kThreads + (thread + 1) % kThreads);
    if (results[size_t(thread)] != expected) return false;
  }
  return true;
}

__global__ void copy_some(const float4* from, float4* to, int size) {
  SHARED_ARRAY(float4, shared, 32);
  const bool valid = int(threadIdx.x) < size;
  copy_async_16(&shared[threadIdx.x], valid ? from + threadIdx.x : from, valid);
  commit_copies();
  wait_copies<0>();
  to[threadIdx.x] = shared[threadIdx.x];
}

bool fills_with_zeros(bool) {
  const float4* from = device_copy(std::vector<float4>(20, {1, 2, 3, 4}));
  float4* to = device_array<float4>(32);
  launch("copy", copy_some, 1, 32, 0, nullptr, from, to, 20);
  const std::vector<float4> copied = host_copy(to, 32);
  return copied[19].w == 4 && copied[20].x == 0 && copied[31].w == 0;
}

}  // namespace

const std::vector<Case> copy_cases = {
    {"copies waited for", true, adds_up<Fault::no_wait>},
    {"enough copies waited for", true, adds_up<Fault::wait_for_too_few>},
    {"a barrier after the wait", true, adds_up<Fault::no_barrier>},
    {"aligned copies", true, adds_up<Fault::misaligned>},
    {"copies from inside an array", true, adds_up<Fault::outside>},
    {"a stage read before it is refilled", true, adds_up<Fault::refilled_too_early>},
    {"copies that fill with zeros", false, fills_with_zeros},
};
