#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "device_choice.h"

namespace root_optimizer::wrap {

/// The CPU backend of a function's last call, kept for the next one: new scratch memory costs a page fault for each
/// page, and new threads take a while to start. There is one for each JavaScript environment. Calls that overlap make
/// their own.
class SpareBackend {
 public:
  /// Runs body(backend) and keeps the backend, unless it throws.
  template <typename Body>
  auto lend(const DeviceChoice& choice, Body&& body) {
    std::unique_ptr<Backend> backend = take(choice);
    const auto result = body(*backend);
    if (backend->memory_bytes() <= kMostBytes) keep(std::move(backend), choice);
    return result;
  }

 private:
  // Enough for a 1024 × 4096 matrix.
  static constexpr size_t kMostBytes = size_t(64) << 20;

  std::unique_ptr<Backend> take(const DeviceChoice& choice) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (backend_ != nullptr && choice.threads == threads_ && choice.arithmetic == arithmetic_) {
        return std::move(backend_);
      }
    }
    return choice.make();
  }

  void keep(std::unique_ptr<Backend> backend, const DeviceChoice& choice) {
    const std::lock_guard<std::mutex> lock(mutex_);
    backend_.swap(backend);  // the old backend is destroyed after the lock is released
    threads_ = choice.threads;
    arithmetic_ = choice.arithmetic;
  }

  std::mutex mutex_;
  std::unique_ptr<Backend> backend_;
  int threads_ = 0;  // as the caller asked, 0 included
  Arithmetic arithmetic_ = {};
};

}  // namespace root_optimizer::wrap
