// The runtime's calls that put work into streams: launches, copies and fills.

#include <algorithm>
#include <cstring>

#include "kernel.h"
#include "shared.h"

using emulator::call;
using emulator::Device;
using emulator::is_forbidden_by_capture;
using emulator::resolve;
using emulator::state;

namespace emulator {

namespace {

void inspect(Device& device, const std::string& what) {
  if (device.error != cudaSuccess) return;
  const std::string message = state().memory.inspect(device.id);
  if (!message.empty()) report_fault(device, cudaErrorIllegalAddress, what + ": " + message);
}

bool is_on_device(const void* memory, size_t bytes) {
  const Allocation* allocation = state().memory.find(memory, bytes);
  return allocation && allocation->device != kHost;
}

bool is_pinned(const void* memory, size_t bytes) {
  const Allocation* allocation = state().memory.find(memory, bytes);
  return allocation && allocation->device == kHost;
}

}  // namespace

cudaError_t launch(Launch launch, cudaStream_t handle) {
  return call("cudaLaunchKernel", [&] {
    CUstream_st* stream = resolve(handle);
    if (!stream || stream->device != current_device) return cudaErrorInvalidResourceHandle;
    const auto& [x, y, z] = launch.block;
    const uint64_t threads = uint64_t(x) * y * z;
    if (threads == 0 || threads > 1024 || x > 1024 || y > 1024 || z > 64) return cudaErrorInvalidConfiguration;
    const dim3& grid = launch.grid;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
    if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
    const auto limit = state().dynamic_limits.find(launch.kernel);
    if (launch.shared > std::max(kDefaultShared, limit == state().dynamic_limits.end() ? 0 : limit->second)) {
      return cudaErrorInvalidValue;
    }
    Device& device = emulator::device();
    enqueue(*stream, [&device, launch = std::move(launch)] {
      run_kernel(device, launch);
      inspect(device, std::string("kernel ") + launch.name);
    });
    return cudaSuccess;
  });
}

cudaError_t poison(void* memory, size_t bytes, cudaStream_t handle) {
  return call("poison", [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!is_on_device(memory, bytes)) return cudaErrorInvalidValue;
    enqueue(*stream, [=] {
      Allocation* allocation = state().memory.find(memory, bytes);
      if (allocation) state().memory.poison(*allocation, static_cast<uint8_t*>(memory), bytes);
    });
    return cudaSuccess;
  });
}

// Enqueues a copy that runs in its turn. Pageable memory has been read before the call returns.
static cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, CUstream_st& stream) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = is_on_device(to, bytes), from_device = is_on_device(from, bytes);
  const bool wants_device_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool wants_device_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && (to_device != wants_device_to || from_device != wants_device_from)) {
    return cudaErrorInvalidValue;
  }
  const bool from_pageable = !from_device && !is_pinned(from, bytes);
  const bool to_pageable = !to_device && !is_pinned(to, bytes);
  if (stream.capture && (from_pageable || to_pageable)) {
    stream.capture->valid = false;
    return cudaErrorStreamCaptureUnsupported;
  }
  Device& device = state().devices[size_t(stream.device)];
  const auto run = [=, &device](const void* source) {
    if ((to_device && !is_on_device(to, bytes)) || (from_device && !is_on_device(from, bytes))) {
      return report_fault(device, cudaErrorIllegalAddress, "cudaMemcpyAsync: its device memory has been freed");
    }
    memmove(to, source, bytes);
    if (to_device) inspect(device, "cudaMemcpyAsync");
  };
  if (from_pageable) {
    const auto* begin = static_cast<const uint8_t*>(from);
    auto staged = std::make_shared<std::vector<uint8_t>>(begin, begin + bytes);
    enqueue(stream, [=] { run(staged->data()); });
  } else {
    enqueue(stream, [=] { run(from); });
  }
  if (to_pageable) run_until([&] { return stream.queue.empty(); });
  return device.error;
}

static cudaError_t fill(void* memory, int value, size_t bytes, CUstream_st& stream) {
  if (bytes == 0) return cudaSuccess;
  if (!is_on_device(memory, bytes)) return cudaErrorInvalidValue;
  Device& device = state().devices[size_t(stream.device)];
  enqueue(stream, [=, &device] {
    if (!is_on_device(memory, bytes)) {
      return report_fault(device, cudaErrorIllegalAddress, "cudaMemsetAsync: its device memory has been freed");
    }
    memset(memory, value, bytes);
    inspect(device, "cudaMemsetAsync");
  });
  return cudaSuccess;
}

}  // namespace emulator

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    return stream ? emulator::copy(to, from, bytes, kind, *stream) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call(__func__, [=] {
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    CUstream_st* stream = resolve(nullptr);
    const cudaError_t status = emulator::copy(to, from, bytes, kind, *stream);
    if (status != cudaSuccess) return status;
    emulator::run_until([=] { return stream->queue.empty(); });
    return emulator::device().error;
  });
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    return stream ? emulator::fill(memory, value, bytes, *stream) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  return call(__func__, [=] {
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    return emulator::fill(memory, value, bytes, *resolve(nullptr));
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call(__func__, [=] {
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || size_t(value) > emulator::kMaxShared) {
      return cudaErrorInvalidValue;
    }
    state().dynamic_limits[kernel] = size_t(value);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  return call(__func__, [=] {
    attributes->maxThreadsPerBlock = 1024;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads, size_t shared) {
  return call(__func__, [=] {
    if (threads < 1 || threads > 1024) return cudaErrorInvalidValue;
    const size_t by_shared = (emulator::kMaxShared + 1024) / (shared + 1024);
    *blocks = int(std::min({size_t(32), size_t(2048 / threads), by_shared}));
    return cudaSuccess;
  });
}
