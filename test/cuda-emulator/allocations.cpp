// The runtime's calls on memory.

#include <algorithm>

#include "device.h"

using emulator::Allocation;
using emulator::call;
using emulator::Device;
using emulator::is_forbidden_by_capture;
using emulator::kHost;
using emulator::resolve;
using emulator::state;

namespace emulator {

namespace {

constexpr size_t kGranularity = 512;

size_t rounded(size_t bytes) { return (bytes + kGranularity - 1) / kGranularity * kGranularity; }

void trim_all(const Device& device) {
  for (CUmemPoolHandle_st* pool : state().pools) {
    if (pool->device == device.id) trim(*pool, 0);
  }
}

cudaError_t allocate(void** memory, size_t bytes, int device, CUmemPoolHandle_st* pool) {
  Allocation* allocation = state().memory.allocate(device, pool, bytes);
  if (!allocation) return cudaErrorMemoryAllocation;
  *memory = allocation->base;
  return cudaSuccess;
}

cudaError_t allocate_from(CUmemPoolHandle_st& pool, void** memory, size_t bytes) {
  *memory = nullptr;
  if (bytes == 0) return cudaErrorInvalidValue;
  Device& device = state().devices[size_t(pool.device)];
  const uint64_t used = pool.used + rounded(bytes);
  if (pool.limit != 0 && used > pool.limit) return cudaErrorMemoryAllocation;
  if (used > pool.reserved) {
    const size_t total = state().settings.memory;
    // The missing memory may lie idle in the pools, in this one too.
    if (used - pool.reserved > total - device.committed) trim_all(device);
    if (used - pool.reserved > total - device.committed) return cudaErrorMemoryAllocation;
    device.committed += used - pool.reserved;
    pool.reserved = used;
  }
  pool.used = used;
  pool.used_high = std::max(pool.used_high, pool.used);
  pool.reserved_high = std::max(pool.reserved_high, pool.reserved);
  return allocate(memory, bytes, pool.device, &pool);
}

void release(Allocation* allocation) {
  Device& device = state().devices[size_t(allocation->device)];
  const std::string message = state().memory.release(allocation);
  if (!message.empty()) report_fault(device, cudaErrorIllegalAddress, "free: " + message);
}

// Other allocations may get the bytes as soon as the call returns, as they may on a device.
void give_back(Allocation& allocation) {
  allocation.ends = true;
  if (allocation.pool) {
    allocation.pool->used -= rounded(allocation.bytes);
  } else {
    state().devices[size_t(allocation.device)].committed -= rounded(allocation.bytes);
  }
}

}  // namespace

void trim(CUmemPoolHandle_st& pool, uint64_t keep) {
  const uint64_t kept = std::max(pool.used, std::min(keep, pool.reserved));
  state().devices[size_t(pool.device)].committed -= pool.reserved - kept;
  pool.reserved = kept;
}

void settle_pools() {
  for (CUmemPoolHandle_st* pool : state().pools) trim(*pool, pool->release_threshold);
}

}  // namespace emulator

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return call(__func__, [=] {
    *total = state().settings.memory;
    *free = *total - emulator::device().committed;
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return call(__func__, [=] {
    *memory = nullptr;
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) return cudaSuccess;
    Device& device = emulator::device();
    const size_t needed = emulator::rounded(bytes), total = state().settings.memory;
    if (needed > total - device.committed) emulator::trim_all(device);
    if (needed > total - device.committed) return cudaErrorMemoryAllocation;
    device.committed += needed;
    return emulator::allocate(memory, bytes, emulator::current_device, nullptr);
  });
}

cudaError_t cudaFree(void* memory) {
  return call(__func__, [=] {
    if (!memory) return cudaSuccess;
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    emulator::Allocation* allocation = state().memory.find(memory);
    if (!allocation || allocation->base != memory || allocation->device == kHost || allocation->ends) {
      return cudaErrorInvalidValue;
    }
    emulator::drain(state().devices[size_t(allocation->device)]);
    emulator::give_back(*allocation);
    emulator::release(allocation);
    return emulator::device().error;
  });
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return call(__func__, [=] {
    *memory = nullptr;
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0) return cudaSuccess;
    return emulator::allocate(memory, bytes, kHost, nullptr);
  });
}

cudaError_t cudaMallocHost(void** memory, size_t bytes, unsigned flags) {
  return call(__func__, [=] { return cudaHostAlloc(memory, bytes, flags); });
}

cudaError_t cudaFreeHost(void* memory) {
  return call(__func__, [=] {
    if (!memory) return cudaSuccess;
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    emulator::Allocation* allocation = state().memory.find(memory);
    if (!allocation || allocation->base != memory || allocation->device != kHost) return cudaErrorInvalidValue;
    for (Device& device : state().devices) emulator::drain(device);
    const std::string message = state().memory.release(allocation);
    if (!message.empty()) emulator::report_fault(emulator::device(), cudaErrorIllegalAddress, "pinned: " + message);
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return call(__func__, [=] {
    const cudaMemLocation& location = properties->location;
    if (properties->allocType != cudaMemAllocationTypePinned || location.type != cudaMemLocationTypeDevice ||
        location.id < 0 || location.id >= state().settings.devices) {
      return cudaErrorInvalidValue;
    }
    *pool = new CUmemPoolHandle_st{location.id, properties->maxSize};
    state().pools.insert(*pool);
    return cudaSuccess;
  });
}

// Memory that is still allocated returns to the device when it is freed.
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return call(__func__, [=] {
    if (!state().pools.count(pool)) return cudaErrorInvalidValue;
    pool->release_threshold = 0;
    emulator::trim(*pool, 0);
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call(__func__, [=] {
    if (!state().pools.count(pool)) return cudaErrorInvalidValue;
    switch (attribute) {
      case cudaMemPoolReuseFollowEventDependencies:
      case cudaMemPoolReuseAllowOpportunistic:
      case cudaMemPoolReuseAllowInternalDependencies: return cudaSuccess;
      case cudaMemPoolAttrReleaseThreshold:
        pool->release_threshold = *static_cast<uint64_t*>(value);
        return cudaSuccess;
      case cudaMemPoolAttrReservedMemHigh: pool->reserved_high = pool->reserved; return cudaSuccess;
      case cudaMemPoolAttrUsedMemHigh: pool->used_high = pool->used; return cudaSuccess;
      default: return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return call(__func__, [=] {
    if (!state().pools.count(pool)) return cudaErrorInvalidValue;
    uint64_t& result = *static_cast<uint64_t*>(value);
    switch (attribute) {
      case cudaMemPoolAttrReleaseThreshold: result = pool->release_threshold; return cudaSuccess;
      case cudaMemPoolAttrReservedMemCurrent: result = pool->reserved; return cudaSuccess;
      case cudaMemPoolAttrReservedMemHigh: result = pool->reserved_high; return cudaSuccess;
      case cudaMemPoolAttrUsedMemCurrent: result = pool->used; return cudaSuccess;
      case cudaMemPoolAttrUsedMemHigh: result = pool->used_high; return cudaSuccess;
      default: return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes_to_keep) {
  return call(__func__, [=] {
    if (!state().pools.count(pool)) return cudaErrorInvalidValue;
    emulator::trim(*pool, bytes_to_keep);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return call(__func__, [=] {
    if (device < 0 || device >= state().settings.devices) return cudaErrorInvalidDevice;
    *pool = state().devices[size_t(device)].default_pool;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocFromPoolAsync(void** memory, size_t bytes, cudaMemPool_t pool, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!state().pools.count(pool)) return cudaErrorInvalidValue;
    if (stream->capture) return stream->capture->valid = false, cudaErrorStreamCaptureUnsupported;
    return emulator::allocate_from(*pool, memory, bytes);
  });
}

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return stream->capture->valid = false, cudaErrorStreamCaptureUnsupported;
    return emulator::allocate_from(*state().devices[size_t(stream->device)].default_pool, memory, bytes);
  });
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t handle) {
  return call(__func__, [=] {
    if (!memory) return cudaSuccess;
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return stream->capture->valid = false, cudaErrorStreamCaptureUnsupported;
    emulator::Allocation* allocation = state().memory.find(memory);
    if (!allocation || allocation->base != memory || allocation->device == kHost || allocation->ends) {
      return cudaErrorInvalidValue;
    }
    emulator::give_back(*allocation);
    emulator::enqueue(*stream, [=] { emulator::release(state().memory.find(memory)); });
    return cudaSuccess;
  });
}
