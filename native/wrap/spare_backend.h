#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <utility>

#include "device_choice.h"

namespace root_optimizer::wrap {

/// The backends of the functions' last calls, one of the CPU and one of CUDA, kept for the next ones. New scratch
/// memory of the CPU costs a page fault for each page, new threads take a while to start, and a GPU's streams, events
/// and memory take longer than a small matrix does. Each JavaScript environment has its own. Calls that overlap make
/// backends of their own.
class SpareBackend {
 public:
  /// Runs body(backend) and keeps the backend, unless it throws.
  template <typename Body>
  auto lend(const DeviceChoice& choice, Body&& body) {
    std::unique_ptr<Backend> backend = take(choice);
    const auto result = body(*backend);
    if (backend->memory_bytes() <= most_bytes(choice)) keep(std::move(backend), choice);
    return result;
  }

 private:
  struct Slot {
    std::unique_ptr<Backend> backend;
    int cuda = -1;
    int threads = 0;  // as the caller asked, 0 included
    Arithmetic arithmetic = {};
  };

  // Enough for a 1024 × 4096 matrix on the CPU, and for a 4096 × 4096 matrix on a GPU.
  static size_t most_bytes(const DeviceChoice& choice) { return size_t(choice.is_cpu() ? 64 : 320) << 20; }

  std::unique_ptr<Backend> take(const DeviceChoice& choice) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Slot& slot = slots_[choice.is_cpu() ? 0 : 1];
      if (slot.backend != nullptr && choice.cuda == slot.cuda && choice.threads == slot.threads &&
          choice.arithmetic == slot.arithmetic) {
        return std::move(slot.backend);
      }
    }
    return choice.make();
  }

  void keep(std::unique_ptr<Backend> backend, const DeviceChoice& choice) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Slot& slot = slots_[choice.is_cpu() ? 0 : 1];
    slot.backend.swap(backend);  // the old backend is destroyed after the lock is released
    slot.cuda = choice.cuda;
    slot.threads = choice.threads;
    slot.arithmetic = choice.arithmetic;
  }

  std::mutex mutex_;
  std::array<Slot, 2> slots_;
};

}  // namespace root_optimizer::wrap
