#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "backend.h"

namespace root_optimizer {

/// An array in a backend's memory that a scope owns; zeroed at first.
template <typename T>
class Owned {
 public:
  Owned(Backend& backend, size_t count)
      : data_(static_cast<T*>(backend.allocate(count * sizeof(T))), {&backend}), count_(count) {}

  T* data() const { return data_.get(); }
  size_t count() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void read(T* host) const { backend().read(host, data(), bytes()); }
  void write(const T* host) { backend().write(data(), host, bytes()); }
  std::vector<T> values() const {
    std::vector<T> host(count_);
    read(host.data());
    return host;
  }

 private:
  struct Release {
    Backend* backend;
    void operator()(T* data) const { backend->release(data); }
  };

  Backend& backend() const { return *data_.get_deleter().backend; }

  std::unique_ptr<T, Release> data_;
  size_t count_;
};

}  // namespace root_optimizer
