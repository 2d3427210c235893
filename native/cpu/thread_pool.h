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
  ///
  /// In order, whoever is free next. Or `by_place`: a thread takes the same part of [0, count) every time, and of other
  /// parts what is left over; so what tasks of one index work on stays in one core's caches from call to call.
  void for_each(int64_t count, bool by_place, FunctionRef<void(int64_t index, int slot)> task);

 private:
  struct Part {
    int64_t next, end;
  };

  void work(size_t thread);
  /// The part that `thread` takes its next task from; null: nothing is left.
  Part* part_for(size_t thread);
  void take_tasks(size_t thread, std::unique_lock<std::mutex>& lock);

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  const FunctionRef<void(int64_t, int)>* task_ = nullptr;
  std::vector<Part> parts_;  // of this round, at most one for each thread
  int64_t left_ = 0;         // tasks that nobody has taken
  // Changed under the mutex; read without it by those who look out.
  std::atomic<int64_t> running_{0};
  std::atomic<uint64_t> rounds_{0};
  int slots_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace root_optimizer
