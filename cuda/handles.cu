#include "handles.h"

#include <chrono>
#include <string>

#include "../native/error.h"
#include "driver_function.h"

namespace root_optimizer::cuda {

void require(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears the error if it can be cleared, so that the next call does not fail for it
  const std::string message =
      std::string(call) + " failed: " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")";
  throw Error(status == cudaErrorMemoryAllocation ? "ERR_OUT_OF_MEMORY" : "ERR_CUDA", message);
}

OnDevice::OnDevice(int index, std::nothrow_t) noexcept {
  if (const auto get = driver_function<int(void**)>("cuCtxGetCurrent")) get(&previous_);
  status_ = cudaSetDevice(index);
}

OnDevice::~OnDevice() {
  if (const auto set = driver_function<int(void*)>("cuCtxSetCurrent")) set(previous_);
}

Stream make_stream() {
  cudaStream_t stream;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event;
  require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreateWithFlags");
  return Event(event);
}

void wait_for(cudaEvent_t event) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kAwake(2);
  const Clock::time_point start = Clock::now();
  do {
    const cudaError_t status = cudaEventQuery(event);
    if (status != cudaErrorNotReady) return require(status, "cudaEventQuery");
    cudaGetLastError();  // "not ready" would else be the thread's last error, for whoever asks next
  } while (Clock::now() - start < kAwake);
  require(cudaEventSynchronize(event), "cudaEventSynchronize");
}

Pinned make_pinned(size_t bytes) {
  void* memory;
  require(cudaMallocHost(&memory, bytes), "cudaMallocHost");
  return Pinned(memory);
}

Pool make_pool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t pool;
  require(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
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
  require(status, "cudaMallocFromPoolAsync");
  return memory;
}

void* allocate_zeroed_from(cudaMemPool_t pool, size_t bytes, const char* what, cudaStream_t stream) {
  void* const memory = allocate_from(pool, bytes, what, stream);
  const cudaError_t status = cudaMemsetAsync(memory, 0, bytes, stream);
  if (status != cudaSuccess) cudaFreeAsync(memory, stream);
  require(status, "cudaMemsetAsync");
  return memory;
}

}  // namespace root_optimizer::cuda
