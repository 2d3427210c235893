#include "thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>

namespace root_optimizer {

namespace {

// A step is a chain of some fifty rounds, each soon after the last. Waking a thread takes as long as many rounds.
constexpr std::chrono::microseconds kLookout{50};

template <typename Condition>
void look_out_for(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kLookout;
  while (!condition() && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16; ++i) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  workers_.reserve(size_t(threads - 1));
  parts_.reserve(size_t(threads));
}

void ThreadPool::start() {
  while (int(workers_.size()) + 1 < threads_) {
    try {
      workers_.emplace_back([this, thread = workers_.size() + 1] { work(thread); });
    } catch (const std::system_error&) {
      break;  // A container limits its threads. Fewer threads give the same results.
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::for_each(int64_t count, Order order, FunctionRef<void(int64_t, int)> task) {
  if (count <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  task_ = &task;
  left_ = count;
  slots_ = 0;
  const int64_t parts = order == Order::by_place ? std::min(count, int64_t(workers_.size()) + 1) : 1;
  parts_.clear();
  for (int64_t i = 0; i < parts; ++i) parts_.push_back({.next = count * i / parts, .end = count * (i + 1) / parts});
  wake_.notify_all();
  ++rounds_;
  take_tasks(0, lock);
  lock.unlock();
  look_out_for([this] { return running_ == 0; });
  lock.lock();
  ended_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::work(size_t thread) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || left_ > 0; });
    if (stopping_) return;
    take_tasks(thread, lock);
    const uint64_t round = rounds_;
    lock.unlock();
    look_out_for([&] { return rounds_ != round; });
    lock.lock();
  }
}

ThreadPool::Part* ThreadPool::part_for(size_t thread) {
  if (left_ == 0) return nullptr;
  if (thread < parts_.size() && parts_[thread].next < parts_[thread].end) return &parts_[thread];
  const auto shorter = [](const Part& a, const Part& b) { return a.end - a.next < b.end - b.next; };
  return &*std::max_element(parts_.begin(), parts_.end(), shorter);
}

// Tasks are coarse (tens of microseconds and up), so one mutex for all of the bookkeeping costs nothing that shows.
void ThreadPool::take_tasks(size_t thread, std::unique_lock<std::mutex>& lock) {
  if (left_ == 0) return;
  const int slot = slots_++;
  while (Part* part = part_for(thread)) {
    // A thread takes from the front of its own part, and from the end of another's. A single part is everybody's own.
    const int64_t index = part == &parts_[std::min(thread, parts_.size() - 1)] ? part->next++ : --part->end;
    --left_;
    ++running_;
    lock.unlock();
    (*task_)(index, slot);
    lock.lock();
    if (--running_ == 0 && left_ == 0) ended_.notify_one();
  }
}

}  // namespace root_optimizer
