#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "memory.h"
#include "streams.h"

namespace emulator {

/// xorshift64*: the source of every random order.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 | 1) {}
  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return uint32_t(state_ * 0x2545f4914f6cdd1d >> 32);
  }
  uint32_t below(size_t bound) { return uint32_t(uint64_t(next()) * bound >> 32); }

 private:
  uint64_t state_;
};

/// A call that fails when it is made for the `countdown`-th time.
struct Failure {
  std::string call;
  int countdown;
  cudaError_t error;
};

/// The values of the EMULATOR_ variables.
struct Settings {
  uint64_t seed;
  int devices;
  int major, minor;
  size_t memory;
  int driver;
  bool rounded_sums;
  std::string traffic;  ///< a file; empty: what kernels move is not counted
  std::vector<Failure> failures;

  Settings();
};

struct Device {
  int id;
  cudaError_t error = cudaSuccess;  ///< sticky: every call fails with it once a kernel has failed
  size_t committed = 0;             ///< bytes of cudaMalloc and of the pools' reserve
  CUmemPoolHandle_st* default_pool;
  CUstream_st* legacy;  ///< the stream that a null handle means
};

/// The whole state of the emulator. One mutex guards it, held during every call and while kernels run.
struct State {
  std::recursive_mutex mutex;
  Settings settings;
  Random random{settings.seed};
  std::vector<Device> devices;
  Memory memory;
  std::set<CUstream_st*> streams;
  std::set<CUevent_st*> events;
  std::set<CUmemPoolHandle_st*> pools;
  std::map<const void*, size_t> dynamic_limits;  ///< what cudaFuncSetAttribute allows a kernel
  std::string last_fault;

  State();
};

State& state();

extern thread_local int current_device;
extern thread_local cudaError_t last_error;

/// The errors of any call that needs a device: an injected one, a missing driver or device, a sticky one.
cudaError_t enter(const char* call);
/// The same errors without the sticky one.
cudaError_t enter_query(const char* call);
inline Device& device() { return state().devices[size_t(current_device)]; }

/// Writes the message and makes it the device's sticky error.
void report_fault(Device& device, cudaError_t error, const std::string& message);

template <typename F>
cudaError_t call(const char* name, F body, cudaError_t (*begin)(const char*) = enter) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  cudaError_t status = begin(name);
  if (status == cudaSuccess) status = body();
  if (status != cudaSuccess) last_error = status;
  return status;
}

}  // namespace emulator
