// Threads that do not wait for each other as they must.

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

constexpr int kThreads = 128;

template <bool kBroken>
__global__ void reduce(const float* values, float* sum) {
  SHARED_ARRAY(float, parts, kThreads);
  parts[threadIdx.x] = values[threadIdx.x];
  for (unsigned width = kThreads / 2; width > 0; width /= 2) {
    if (!kBroken) __syncthreads();
    if (threadIdx.x < width) parts[threadIdx.x] += parts[threadIdx.x + width];
  }
  if (threadIdx.x == 0) *sum = parts[0];
}

// A barrier stands before each round's reads, but not before the next round's stores.
template <bool kBroken>
__global__ void rotate(int* values, int rounds) {
  SHARED_ARRAY(int, shared, kThreads);
  int value = values[threadIdx.x];
  for (int i = 0; i < rounds; ++i) {
    shared[threadIdx.x] = value;
    __syncthreads();
    value = shared[(threadIdx.x + 1) % kThreads];
    if (!kBroken) __syncthreads();
  }
  values[threadIdx.x] = value;
}

template <bool kBroken>
__global__ void exchange_in_warp(int* values) {
  SHARED_ARRAY(int, shared, warpSize);
  shared[threadIdx.x] = values[threadIdx.x];
  if (!kBroken) __syncwarp();
  values[threadIdx.x] = shared[threadIdx.x ^ 1];
}

template <bool kBroken>
__global__ void wait_in_a_branch(float* values, int size) {
  if (kBroken) {
    if (int(threadIdx.x) < size) {
      values[threadIdx.x] = 1;
      __syncthreads();
    }
  } else {
    if (int(threadIdx.x) < size) values[threadIdx.x] = 1;
    __syncthreads();
  }
}

template <bool kBroken>
__global__ void wait_at_two_places(float* values) {
  if (kBroken && threadIdx.x % 2 == 1) {
    __syncthreads();
  } else {
    if (!kBroken || threadIdx.x % 2 == 0) values[threadIdx.x] = 1;
    __syncthreads();
  }
}

template <bool kBroken>
__global__ void sum_of_warp(const float* values, float* sum, int size) {
  const int lane = int(threadIdx.x);
  if (kBroken && lane >= size) return;
  float value = lane < size ? values[lane] : 0;
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffff, value, apart);
  if (lane == 0) *sum = value;
}

template <bool kBroken>
__global__ void count(unsigned* counter) {
  if (kBroken) {
    const unsigned old = *counter;
    __syncwarp();
    *counter = old + 1;
  } else {
    atomicAdd(counter, 1);
  }
}

bool sums_up(bool broken) {
  const float* values = device_copy(sequence<float>(kThreads));
  float* sum = device_array<float>(1);
  launch("reduce", broken ? reduce<true> : reduce<false>, 1, kThreads, 0, nullptr, values, sum);
  return host_copy(sum, 1)[0] == kThreads * (kThreads - 1) / 2;
}

bool rotates(bool broken) {
  int* values = device_copy(sequence<int>(kThreads));
  launch("rotate", broken ? rotate<true> : rotate<false>, 1, kThreads, 0, nullptr, values, kThreads);
  return host_copy(values, kThreads) == sequence<int>(kThreads);
}

bool exchanges(bool broken) {
  int* values = device_copy(sequence<int>(warpSize));
  launch("exchange", broken ? exchange_in_warp<true> : exchange_in_warp<false>, 1, warpSize, 0, nullptr, values);
  const std::vector<int> exchanged = host_copy(values, warpSize);
  for (int i = 0; i < warpSize; ++i) {
    if (exchanged[size_t(i)] != (i ^ 1)) return false;
  }
  return true;
}

bool waits_together(bool broken) {
  float* values = device_array<float>(kThreads);
  launch("wait", broken ? wait_in_a_branch<true> : wait_in_a_branch<false>, 1, kThreads, 0, nullptr, values, 100);
  return host_copy(values, 100) == std::vector<float>(100, 1);
}

bool waits_at_one_place(bool broken) {
  float* values = device_array<float>(kThreads);
  launch("wait", broken ? wait_at_two_places<true> : wait_at_two_places<false>, 1, kThreads, 0, nullptr, values);
  return host_copy(values, 1)[0] == 1;
}

bool shuffles_with_all_lanes(bool broken) {
  const float* values = device_copy(sequence<float>(20));
  float* sum = device_array<float>(1);
  launch("sum", broken ? sum_of_warp<true> : sum_of_warp<false>, 1, warpSize, 0, nullptr, values, sum, 20);
  return host_copy(sum, 1)[0] == 190;
}

bool counts(bool broken) {
  unsigned* counter = device_copy(std::vector<unsigned>{0});
  launch("count", broken ? count<true> : count<false>, 4, kThreads, 0, nullptr, counter);
  return host_copy(counter, 1)[0] == 4 * kThreads;
}

}  // namespace

const std::vector<Case> block_cases = {
    {"a barrier in a reduction", true, sums_up},
    {"a barrier before shared memory is reused", true, rotates},
    {"__syncwarp between lanes", true, exchanges},
    {"a barrier that all threads reach", true, waits_together},
    {"one barrier for all threads", true, waits_at_one_place},
    {"all lanes in a shuffle", true, shuffles_with_all_lanes},
    {"an atomic counter", true, counts},
};
