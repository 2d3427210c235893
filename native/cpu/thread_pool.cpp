#include "thread_pool.h"

#include <system_error>

namespace root_optimizer {

ThreadPool::ThreadPool(int threads) : threads_(threads) { workers_.reserve(size_t(threads - 1)); }

void ThreadPool::start() {
  for (int thread = 1; thread < threads_; ++thread) {
    try {
      workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {
      break;  // A container's limit on threads: fewer of them give the same results.
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

void ThreadPool::for_each(int64_t count, const std::function<void(int64_t, int)>& task) {
  if (count <= 1 || threads_ == 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  if (workers_.empty()) start();
  std::unique_lock<std::mutex> lock(mutex_);
  task_ = &task;
  next_ = 0;
  count_ = count;
  wake_.notify_all();
  take_tasks(lock, 0);
  ended_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::work(int thread) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || next_ < count_; });
    if (stopping_) return;
    take_tasks(lock, thread);
  }
}

// Tasks are coarse (tens of microseconds and up), so one mutex for all of the bookkeeping costs nothing that shows.
void ThreadPool::take_tasks(std::unique_lock<std::mutex>& lock, int thread) {
  while (next_ < count_) {
    const int64_t index = next_++;
    ++running_;
    lock.unlock();
    (*task_)(index, thread);
    lock.lock();
    if (--running_ == 0 && next_ == count_) ended_.notify_one();
  }
}

}  // namespace root_optimizer
