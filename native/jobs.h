#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "newton_schulz.h"

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

/// A matrix, and what others have to share with it to go through its job together.
struct Member {
  Item item;
  int64_t rows, columns;
  bool nesterov;
  const std::vector<Coefficients>* coefficients;
  uint32_t parameter;
};

/// Same-shaped matrices and the products that orthogonalise each of them.
struct Group {
  Batch batch;
  Schedule schedule;
  std::vector<uint32_t> parameters;  ///< theirs, each once

  double flops() const { return schedule.flops(batch.tall(), batch.narrow()) * double(batch.items.size()); }
  Footprint footprint() const;
};

/// As few groups as the backend's limit allows, and groups of one kind as even as they can be.
std::vector<Group> grouped(const Backend& backend, const std::vector<Member>& members);

/// `cost`: that of the job it allows. Both are then divided among threads alike, and what a core has read is still in
/// its caches.
Job check_job(const Batch& batch, double cost);

}  // namespace root_optimizer
