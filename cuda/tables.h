#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace root_optimizer::cuda {

/// Lists in the device's memory that the launches of a plan read: which matrices a pass goes over, and which block does
/// what. How much memory they take is known when all work has been enqueued once. So a plan is enqueued twice, first to
/// collect its lists and then, when they lie in memory, to give launches their addresses.
class Tables {
 public:
  /// From now on lists are collected.
  void collect() {
    memory_ = nullptr;
    content_.clear();
    ends_.clear();
    used_ = 0;
  }
  /// What has been collected is to lie in `memory`. From now on the same lists come again, in the same order.
  void place(void* memory) {
    memory_ = static_cast<char*>(memory);
    used_ = 0;
    next_ = 0;
  }
  const std::vector<char>& content() const { return content_; }

  /// Where a list lies; no address yet while lists are collected.
  template <typename T>
  const T* put(const std::vector<T>& list) {
    static_assert(std::is_trivially_copyable_v<T>);
    constexpr size_t kAlignment = 16;
    const size_t at = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    used_ = at + list.size() * sizeof(T);
    if (memory_ == nullptr) {
      ends_.push_back(used_);
      content_.resize(used_);
      if (!list.empty()) std::memcpy(content_.data() + at, list.data(), list.size() * sizeof(T));
      return nullptr;
    }
    // A plan that is enqueued differently the second time is a bug.
    if (next_ == ends_.size() || ends_[next_++] != used_) std::abort();
    return reinterpret_cast<const T*>(memory_ + at);
  }

 private:
  char* memory_ = nullptr;
  std::vector<char> content_;
  std::vector<size_t> ends_;  // of each list
  size_t used_ = 0;
  size_t next_ = 0;  // the list that comes next
};

}  // namespace root_optimizer::cuda
