#include "handles.h"

#include <string>

#include "../native/error.h"

namespace root_optimizer {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forget what can be forgotten: the next call is not to fail for this one
  const std::string message =
      std::string(call) + " failed: " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
  throw Error(status == cudaErrorMemoryAllocation ? "ERR_OUT_OF_MEMORY" : "ERR_CUDA", message);
}

Stream make_stream() {
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return Event(event);
}

Pinned make_pinned(size_t bytes) {
  void* memory;
  check(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return Pinned(memory);
}

Pool make_pool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool;
  check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  return Pool(pool);
}

void* allocate_from(cudaMemPool_t pool, size_t bytes, const char* what, cudaStream_t stream) {
  void* memory;
  const cudaError_t status = cudaMallocFromPoolAsync(&memory, bytes, pool, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0;
    size_t total = 0;
    cudaMemGetInfo(&free, &total);
    const auto mebibytes = [](size_t size) { return std::to_string((size + (1 << 20) - 1) >> 20) + " MiB"; };
    throw Error("ERR_OUT_OF_MEMORY", "Expected " + mebibytes(bytes) + " of device memory for " + what + ", got " +
                                         mebibytes(free) + " free of " + mebibytes(total) +
                                         " (cudaMallocFromPoolAsync: cudaErrorMemoryAllocation)");
  }
  check(status, "cudaMallocFromPoolAsync");
  check(cudaMemsetAsync(memory, 0, bytes, stream), "cudaMemsetAsync");
  return memory;
}

}  // namespace root_optimizer
