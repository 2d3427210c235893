#pragma once

// Owners of CUDA's objects.

#include <cuda_runtime.h>

#include <cstddef>
#include <new>
#include <utility>

#include "status.h"

namespace root_optimizer::cuda {

/// Directs this thread's CUDA calls to a device for the length of a scope: the thread is Node's, and others use it.
/// Afterwards the previous context comes back, or none if there was none: cudaSetDevice would create one on a device
/// that nobody asked for.
class OnDevice {
 public:
  explicit OnDevice(int index) : OnDevice(index, std::nothrow) { require(status_, "cudaSetDevice"); }
  /// For destructors. If it fails, so do the calls that follow.
  OnDevice(int index, std::nothrow_t) noexcept;
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice();

 private:
  void* previous_ = nullptr;  // a CUcontext
  cudaError_t status_;
};

/// A handle that is destroyed by one call.
template <typename Handle, cudaError_t (*kDestroy)(Handle)>
class Unique {
 public:
  Unique() = default;
  explicit Unique(Handle handle) : handle_(handle) {}
  Unique(Unique&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Unique& operator=(Unique&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Unique() {
    if (handle_ != Handle{}) kDestroy(handle_);
  }

  Handle get() const { return handle_; }

 private:
  Handle handle_{};
};

using Stream = Unique<cudaStream_t, cudaStreamDestroy>;
using Event = Unique<cudaEvent_t, cudaEventDestroy>;
using Pool = Unique<cudaMemPool_t, cudaMemPoolDestroy>;
using Graph = Unique<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Unique<cudaGraphExec_t, cudaGraphExecDestroy>;
using Pinned = Unique<void*, cudaFreeHost>;

/// A stream that no other stream waits for unless it is told to.
Stream make_stream();
Event make_event();
/// Waits for an event. The thread keeps its processor for as long as a short step takes, because to be woken would take
/// a good part of that. Then it sleeps.
void wait_for(cudaEvent_t event);
/// Host memory that a device copies from and to by itself.
Pinned make_pinned(size_t bytes);
/// A pool of a device's memory, which goes back to the device when it is freed.
Pool make_pool(int device);

/// Memory of a pool, uninitialised or zeroed, in the order of a stream. If none is left, the error names `what`.
void* allocate_from(cudaMemPool_t pool, size_t bytes, const char* what, cudaStream_t stream);
void* allocate_zeroed_from(cudaMemPool_t pool, size_t bytes, const char* what, cudaStream_t stream);

}  // namespace root_optimizer::cuda
