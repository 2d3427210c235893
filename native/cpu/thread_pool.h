#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "function_ref.h"

namespace root_optimizer {

/// Threads of one backend. Idle ones sleep, after a look out for more work that lasts less than waking up would: a
/// server that embeds us keeps its cores.
class ThreadPool {
 public:
  /// `threads` includes the one that calls `for_each`.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Starts the threads, if they have not been; without it `for_each` does everything itself.
  void start();

  /// Runs task(index, slot) for every index below `count` and returns when all have ended. It waits for tasks, not
  /// for workers: one that wakes late finds nothing left. Each thread that takes part has a slot of its own, all below
  /// min(count, threads). Tasks must not throw, nor call `for_each` themselves.
  void for_each(int64_t count, FunctionRef<void(int64_t index, int slot)> task);

 private:
  void work();
  void take_tasks(std::unique_lock<std::mutex>& lock);

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  const FunctionRef<void(int64_t, int)>* task_ = nullptr;
  int64_t next_ = 0;
  int64_t count_ = 0;
  // Changed under the mutex; read without it by those who look out.
  std::atomic<int64_t> running_{0};
  std::atomic<uint64_t> rounds_{0};
  int slots_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace root_optimizer
