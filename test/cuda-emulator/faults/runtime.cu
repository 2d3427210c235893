// The runtime refuses what CUDA's runtime refuses, and counts memory as it does.

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

__global__ void nothing() {}
__global__ void divergent() {
  if (threadIdx.x == 0) __syncthreads();
}

cudaError_t start(dim3 grid, dim3 block, size_t shared) {
  return emulator::launch({"nothing", reinterpret_cast<const void*>(nothing), grid, block, shared, nothing}, nullptr);
}

bool checks_launches(bool) {
  const auto allow = [](int bytes) {
    return cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  bool right = start(1, 1024, 48 << 10) == cudaSuccess && start(1, {1, 1, 64}, 0) == cudaSuccess;
  for (const dim3 block : {dim3(0), dim3(1025), dim3(64, 32), dim3(1, 1, 65)}) {
    right &= start(1, block, 0) == cudaErrorInvalidConfiguration;
  }
  for (const dim3 grid : {dim3(0), dim3(0x80000000), dim3(1, 65536), dim3(1, 1, 65536)}) {
    right &= start(grid, 1, 0) == cudaErrorInvalidConfiguration;
  }
  right &= start(1, 1, (48 << 10) + 1) == cudaErrorInvalidValue;
  right &= allow(100 << 10) == cudaSuccess && start(1, 1, 100 << 10) == cudaSuccess;
  right &= start(1, 1, (100 << 10) + 1) == cudaErrorInvalidValue;
  right &= allow((227 << 10) + 1) == cudaErrorInvalidValue;
  right &= cudaPeekAtLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaErrorInvalidValue;
  return right && cudaGetLastError() == cudaSuccess;
}

bool remembers_faults(bool) {
  require(cudaSetDevice(1), "cudaSetDevice");
  launch("divergent", divergent, 1, 32, 0, nullptr);
  void* memory;
  bool right = cudaDeviceSynchronize() == cudaErrorLaunchFailure && cudaMalloc(&memory, 1) == cudaErrorLaunchFailure;
  right &= cudaSetDevice(0) == cudaSuccess && cudaMalloc(&memory, 1) == cudaSuccess;
  return right;
}

bool counts_memory(bool) {
  size_t free, total;
  require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 0};
  cudaMemPool_t pool;
  require(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  uint64_t threshold = ~uint64_t(0), used = 0, high = 0, reserved = 0;
  require(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold), "cudaMemPoolSetAttribute");
  const auto read = [&] {
    require(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "cudaMemPoolGetAttribute");
    require(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &high), "cudaMemPoolGetAttribute");
    require(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "cudaMemPoolGetAttribute");
    require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  };
  void *first, *second;
  require(cudaMallocFromPoolAsync(&first, 1 << 20, pool, nullptr), "cudaMallocFromPoolAsync");
  require(cudaMallocFromPoolAsync(&second, 1 << 20, pool, nullptr), "cudaMallocFromPoolAsync");
  require(cudaFreeAsync(first, nullptr), "cudaFreeAsync");
  require(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  read();
  bool right = used == 1 << 20 && high == 2 << 20 && reserved == 2 << 20 && free == total - (2 << 20);
  right &= cudaFreeAsync(first, nullptr) == cudaErrorInvalidValue;
  require(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
  read();
  right &= reserved == 1 << 20 && free == total - (1 << 20);
  void* memory;
  right &= cudaMalloc(&memory, total) == cudaErrorMemoryAllocation && !memory;
  right &= cudaMallocFromPoolAsync(&memory, total, pool, nullptr) == cudaErrorMemoryAllocation;
  return right && cudaMalloc(&memory, 1 << 20) == cudaSuccess;
}

bool guards_captures(bool) {
  cudaStream_t stream, other;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  require(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  cudaEvent_t event, uncaptured;
  require(cudaEventCreate(&event), "cudaEventCreate");
  require(cudaEventCreate(&uncaptured), "cudaEventCreate");
  require(cudaEventRecord(uncaptured, other), "cudaEventRecord");
  float on_host = 1;
  float* value = device_array<float>(1);
  cudaGraph_t graph;
  const auto begin = [&] { require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin"); };
  const auto invalidates = [&](cudaError_t status, cudaError_t expected) {
    return status == expected && cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated;
  };
  void* memory;
  begin();
  bool right = invalidates(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  begin();
  right &= invalidates(cudaMalloc(&memory, 1), cudaErrorStreamCaptureUnsupported);
  begin();
  right &= invalidates(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  begin();
  right &= invalidates(cudaMemcpyAsync(value, &on_host, 4, cudaMemcpyHostToDevice, stream),
                       cudaErrorStreamCaptureUnsupported);
  begin();
  right &= invalidates(cudaStreamWaitEvent(stream, uncaptured), cudaErrorStreamCaptureIsolation);
  begin();
  right &= cudaStreamSynchronize(other) == cudaSuccess;
  require(cudaEventRecord(event, stream), "cudaEventRecord");
  require(cudaStreamWaitEvent(other, event), "cudaStreamWaitEvent");
  right &= cudaEventQuery(event) == cudaErrorCapturedEvent;
  launch("nothing", nothing, 1, 1, 0, other);
  right &= cudaStreamEndCapture(other, &graph) == cudaErrorStreamCaptureUnmatched;
  return right && cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated;
}

bool checks_copies(bool) {
  float* value = device_array<float>(4);
  float on_host[5];
  bool right = cudaMemcpy(on_host, value, 20, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue;
  right &= cudaMemcpy(on_host, value, 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue;
  right &= cudaMemcpy(on_host, value, 16, cudaMemcpyDefault) == cudaSuccess;
  right &= cudaMemset(value, 0, 17) == cudaErrorInvalidValue;
  return right && cudaFree(value + 1) == cudaErrorInvalidValue && cudaFree(on_host) == cudaErrorInvalidValue;
}

}  // namespace

const std::vector<Case> runtime_cases = {
    {"launch configurations", false, checks_launches}, {"sticky errors", false, remembers_faults},
    {"memory accounts", false, counts_memory},         {"calls during capture", false, guards_captures},
    {"ranges of copies", false, checks_copies},
};
