#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "../backend.h"

namespace root_optimizer {

/// The CPU backend of the last call of a function, kept for the next one: new scratch memory costs a fault for each
/// page, and new threads take a while to start. One per JavaScript environment. Calls that overlap make their own.
class SpareBackend {
 public:
  /// Runs body(backend) and keeps the backend, unless it throws.
  template <typename Body>
  auto lend(int threads, Precision precision, Body&& body) {
    std::unique_ptr<Backend> backend = take(threads, precision);
    const auto result = body(*backend);
    if (backend->held_bytes() <= kMostBytes) keep(std::move(backend), threads, precision);
    return result;
  }

 private:
  // Enough for a 1024 × 4096 matrix.
  static constexpr size_t kMostBytes = size_t(64) << 20;

  std::unique_ptr<Backend> take(int threads, Precision precision) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (backend_ != nullptr && threads == threads_ && precision == precision_) return std::move(backend_);
    }
    return make_cpu_backend(threads, precision);
  }

  void keep(std::unique_ptr<Backend> backend, int threads, Precision precision) {
    const std::lock_guard<std::mutex> lock(mutex_);
    backend_.swap(backend);  // what there was goes when the lock has
    threads_ = threads;
    precision_ = precision;
  }

  std::mutex mutex_;
  std::unique_ptr<Backend> backend_;
  int threads_ = 0;  // as asked for
  Precision precision_ = Precision::float32;
};

}  // namespace root_optimizer
