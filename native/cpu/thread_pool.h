#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace root_optimizer {

/// Threads of one backend. Idle ones sleep: a server that embeds us keeps its cores.
class ThreadPool {
 public:
  /// `threads` includes the one that calls `for_each`; the others start when there is first something to share.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Runs task(index, thread) for every index below `count` and returns when all have ended. It waits for tasks, not
  /// for workers: one that wakes late finds nothing left. Tasks must not throw, nor call `for_each` themselves.
  void for_each(int64_t count, const std::function<void(int64_t index, int thread)>& task);

 private:
  void start();
  void work(int thread);
  void take_tasks(std::unique_lock<std::mutex>& lock, int thread);

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  const std::function<void(int64_t, int)>* task_ = nullptr;
  int64_t next_ = 0;
  int64_t count_ = 0;
  int64_t running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace root_optimizer
