#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "queue.h"

namespace root_optimizer {

/// A parameter's data θ and gradient G.
struct Arrays {
  float* data = nullptr;
  float* gradient = nullptr;
};

/// Work that touches nothing that another job touches.
struct Job {
  double cost = 0;                    ///< roughly, in floating-point operations; a backend balances work by it
  std::vector<Footprint> footprints;  ///< of its batches and parameters of AdamW
  std::vector<uint32_t> parameters;   ///< that it works on
  std::function<void(Queue&)> enqueue;
};

/// Checks, and the updates that happen if no check raises a flag. Numbers that change from step to step lie in the
/// memory that jobs point to.
struct Plan {
  uint64_t version = 0;  ///< differs between the plans of one optimizer
  std::vector<Job> checks;
  std::vector<Job> updates;   ///< one for each check, of the same parameters
  uint32_t* flags = nullptr;  ///< one for each parameter, in the backend's memory; cleared before the checks
  size_t parameters = 0;
  size_t notes = 0;  ///< every Matrix::index and Moments::index is below it
};

/// Parameters' data and gradients in the device's own memory.
class ParameterStore {
 public:
  std::vector<Arrays> arrays;  ///< where jobs find each parameter; the addresses never change
  void* stream = nullptr;      ///< the device's handle for the order in which steps run; on CUDA a cudaStream_t

  /// Both copy data, `read_data` to the host and `write_data` from it. Gradients stay as they are.
  virtual void read_data(const std::vector<Arrays>& host) = 0;
  virtual void write_data(const std::vector<Arrays>& host) = 0;
  virtual void zero_gradients() = 0;

 protected:
  ~ParameterStore() = default;
};

/// A device. Every call returns when its work is done. Throws ERR_OUT_OF_MEMORY and ERR_CUDA.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual Arithmetic arithmetic() const = 0;
  /// Whether one job should take all of this. `travels`: whether the job's data go to the host after every step.
  virtual bool takes(std::span<const Footprint> job, bool travels) const = 0;
  /// The memory kept from call to call, without what `allocate` gave: scratch and the store.
  virtual size_t memory_bytes() const = 0;

  /// Zeroed memory of the device.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// Both do nothing if the addresses are the same. They may be on a device that works in the host's memory.
  virtual void read(void* host, const void* device, size_t bytes) = 0;
  virtual void write(void* device, const void* host, size_t bytes) = 0;

  /// Makes room for the data of parameters of these sizes, and for the gradients of the first so many of them. The
  /// store lives until the next call or as long as the backend. Returns null if jobs work in the host's memory.
  virtual ParameterStore* make_store(const std::vector<int64_t>& sizes, size_t gradients) = 0;

  /// Runs a plan that does not come again, and returns its flags. The memory that its jobs need is taken before the
  /// first update starts, so that ERR_OUT_OF_MEMORY leaves everything as it was.
  virtual std::vector<uint32_t> run(const Plan& plan) = 0;
  /// Runs a plan that comes again, so that a backend may prepare it. Copies the gradients and data of `host` to the
  /// store first, and the new data back at the end. If `host` is empty, the step works on what the store holds. If it
  /// throws, either nothing has changed or every later call throws as well.
  virtual std::vector<uint32_t> step(const Plan& plan, const std::vector<Arrays>& host) = 0;
};

}  // namespace root_optimizer
