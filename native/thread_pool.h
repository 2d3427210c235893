#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "function_ref.h"

namespace root_optimizer {

/// The order in which threads take the tasks of [0, count).
enum class Order {
  in_turn,   ///< the next free thread takes the next task
  by_place,  ///< a thread takes the same part every time, and then what is left of other parts, so that the data of a
             ///< task stay in one core's caches from call to call
};

/// The threads of one backend. An idle thread looks out for more work for less time than waking up would take, and then
/// sleeps, so that a server that embeds us keeps its cores.
class ThreadPool {
 public:
  /// `threads` includes the one that calls `for_each`.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Starts the threads unless they are running. Before that `for_each` runs every task itself.
  void start();

  /// Runs task(index, slot) for every index below `count` and returns when all tasks have ended. It waits for tasks,
  /// not for workers: a worker that wakes late finds nothing left. Each thread that takes part has a slot of its own,
  /// below min(count, threads). Tasks must neither throw nor call `for_each`.
  void for_each(int64_t count, Order order, FunctionRef<void(int64_t index, int slot)> task);

 private:
  struct Part {
    int64_t next, end;
  };

  void work(size_t thread);
  /// The part that `thread` takes its next task from; null if no task is left.
  Part* part_for(size_t thread);
  void take_tasks(size_t thread, std::unique_lock<std::mutex>& lock);

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  const FunctionRef<void(int64_t, int)>* task_ = nullptr;
  std::vector<Part> parts_;  // of this round, at most one for each thread
  int64_t left_ = 0;         // tasks that nobody has taken
  // These change under the mutex. A thread that looks out reads them without it.
  std::atomic<int64_t> running_{0};
  std::atomic<uint64_t> rounds_{0};
  int slots_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace root_optimizer
