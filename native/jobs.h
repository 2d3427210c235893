#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "backend.h"

namespace root_optimizer {

/// Memory of a backend that a scope owns.
template <typename T>
class Owned {
 public:
  Owned(Backend& backend, size_t count)
      : backend_(&backend), data_(static_cast<T*>(backend.allocate(count * sizeof(T)))), count_(count) {}
  Owned(Owned&& other) noexcept
      : backend_(other.backend_), data_(std::exchange(other.data_, nullptr)), count_(other.count_) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() {
    if (data_ != nullptr) backend_->release(data_);
  }

  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void read(T* host) const { backend_->read(host, data_, bytes()); }
  void write(const T* host) { backend_->write(data_, host, bytes()); }
  std::vector<T> values() const {
    std::vector<T> host(count_);
    read(host.data());
    return host;
  }

 private:
  Backend* backend_;
  T* data_;
  size_t count_;
};

/// Passes over memory, in the currency of Job::cost: an element costs about this many FLOP's time, all passes together.
constexpr double kElementCost = 100;

inline Job check_job(const Batch& batch) {
  const double size = double(batch.size()) * double(batch.items.size());
  return {kElementCost * size, {}, {}, [=](Queue& queue) { queue.check_momentum(batch); }};
}

}  // namespace root_optimizer
