// Stores and reads outside of the memory that exists.

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

constexpr int kSize = 100;

// The faults that processors and their operating systems report and that crashes.cpp can handle.
#if defined(__x86_64__)
constexpr bool kTrapsAccess = true, kTrapsMisaligned = true;
#elif defined(__aarch64__)
constexpr bool kTrapsAccess = true, kTrapsMisaligned = false;
#else
constexpr bool kTrapsAccess = false, kTrapsMisaligned = false;
#endif

template <bool kBroken>
__global__ void fill(float* values, int size) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (kBroken ? i <= size : i < size) values[i] = 1;
}

template <bool kBroken>
__global__ void shift_in_shared(float* values) {
  SHARED_ARRAY(float, shared, kSize);
  const int i = int(threadIdx.x);
  if (i < kSize) shared[kBroken ? i + 1 : i] = values[i];
  __syncthreads();
  if (i < kSize) values[i] = shared[kBroken && i == 0 ? 1 : i];
}

__global__ void store_dynamic(float* values, int size) {
  float* shared = dynamic_shared<float>();
  if (int(threadIdx.x) < size) shared[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) *values = shared[0];
}

template <bool kBroken>
__global__ void histogram(const int* values, int* counts) {
  SHARED_ARRAY(int, bins, 8);
  if (!kBroken && threadIdx.x < 8) bins[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&bins[values[threadIdx.x] % 8], 1);
  __syncthreads();
  if (threadIdx.x < 8) counts[threadIdx.x] = bins[threadIdx.x];
}

__global__ void accumulate(float* sums) { sums[threadIdx.x] += 1; }

__global__ void store_at(float* values, long long index) { values[index] = 1; }

__global__ void fill_quads(float4* quads) { quads[threadIdx.x] = {1, 1, 1, 1}; }

__device__ __attribute__((noinline)) int depth_of(volatile int* levels, int left) {
  volatile int level = left;
  if (left > 0) *levels = depth_of(levels, left - 1) + 1;
  return *levels + level - left;
}

__global__ void recurse(int* depth, int levels) {
  *depth = 0;
  *depth = depth_of(depth, levels);
}

__global__ void divide(int* value, int by) { *value /= by; }

bool stays_in_sight(bool broken) {
  float* values = device_array<float>(kSize);
  launch("store_at", store_at, 2, 32, 0, nullptr, values, broken ? 1LL << 40 : 0);
  return host_copy(values, 1)[0] == 1;
}

bool stays_aligned(bool broken) {
  float* values = device_array<float>(kSize);
  launch("fill_quads", fill_quads, 1, 8, 0, nullptr, reinterpret_cast<float4*>(values + (broken ? 1 : 0)));
  return host_copy(values, 1)[0] == 1;
}

bool fits_the_stack(bool broken) {
  int* depth = device_array<int>(1);
  launch("recurse", recurse, 1, 1, 0, nullptr, depth, broken ? 100000 : 100);
  return host_copy(depth, 1)[0] == 100;
}

bool divides(bool broken) {
  int* value = device_copy(std::vector<int>{12});
  launch("divide", divide, 1, 1, 0, nullptr, value, broken ? 0 : 3);
  return host_copy(value, 1)[0] == 4;
}

bool stays_inside(bool broken) {
  float* values = device_array<float>(kSize);
  launch("fill", broken ? fill<true> : fill<false>, 1, 128, 0, nullptr, values, kSize);
  return host_copy(values, kSize) == std::vector<float>(kSize, 1);
}

bool stays_inside_region(bool broken) {
  uint8_t* arena = device_array<uint8_t>(4096);
  float* first = reinterpret_cast<float*>(arena);
  float* second = reinterpret_cast<float*>(arena + 1024);
  poison(first, kSize * 4, nullptr);
  poison(second, kSize * 4, nullptr);
  launch("fill", broken ? fill<true> : fill<false>, 1, 128, 0, nullptr, first, kSize);
  return host_copy(first, kSize) == std::vector<float>(kSize, 1);
}

bool finds_region_fresh(bool broken) {
  uint8_t* arena = device_array<uint8_t>(4096);
  require(cudaMemset(arena, 0, 4096), "cudaMemset");
  poison(arena, kSize * 4, nullptr);
  if (!broken) require(cudaMemsetAsync(arena, 0, kSize * 4), "cudaMemsetAsync");
  float* sums = reinterpret_cast<float*>(arena);
  launch("accumulate", accumulate, 1, kSize, 0, nullptr, sums);
  return host_copy(sums, kSize) == std::vector<float>(kSize, 1);
}

bool stays_inside_shared(bool broken) {
  float* values = device_copy(sequence<float>(kSize));
  launch("shift", broken ? shift_in_shared<true> : shift_in_shared<false>, 1, 128, 0, nullptr, values);
  return host_copy(values, 1)[0] == 0;
}

bool stays_inside_dynamic(bool broken) {
  float* value = device_array<float>(1);
  launch("store", store_dynamic, 1, 128, kSize * sizeof(float), nullptr, value, broken ? kSize + 1 : kSize);
  return host_copy(value, 1)[0] == 1;
}

bool clears_shared(bool broken) {
  const int* values = device_copy(sequence<int>(64));
  int* counts = device_array<int>(8);
  launch("histogram", broken ? histogram<true> : histogram<false>, 2, 64, 0, nullptr, values, counts);
  return host_copy(counts, 8) == std::vector<int>(8, 8);
}

bool clears_global(bool broken) {
  float* sums = device_array<float>(kSize);
  if (!broken) require(cudaMemset(sums, 0, kSize * sizeof(float)), "cudaMemset");
  launch("accumulate", accumulate, 1, kSize, 0, nullptr, sums);
  return host_copy(sums, kSize) == std::vector<float>(kSize, 1);
}

bool is_used_before_free(bool broken) {
  float* values = device_array<float>(kSize);
  if (broken) require(cudaFree(values), "cudaFree");
  launch("fill", fill<false>, 1, 128, 0, nullptr, values, kSize);
  require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  if (!broken) require(cudaFree(values), "cudaFree");
  return true;
}

}  // namespace

const std::vector<Case> memory_cases = {
    {"a store to an address that is there", kTrapsAccess, stays_in_sight},
    {"aligned vectors", kTrapsMisaligned, stays_aligned},
    {"a small stack", kTrapsAccess, fits_the_stack},
    {"a division by something", kTrapsAccess, divides},
    {"stores inside a global array", true, stays_inside},
    {"stores inside a poisoned region", true, stays_inside_region},
    {"stores inside a shared array", true, stays_inside_shared},
    {"stores inside dynamic shared memory", true, stays_inside_dynamic},
    {"shared memory set before it is read", true, clears_shared},
    {"global memory set before it is read", true, clears_global},
    {"a poisoned region set before it is read", true, finds_region_fresh},
    {"memory used before it is freed", true, is_used_before_free},
};
