#include "profile.h"

#include <chrono>
#include <utility>

namespace root_optimizer {

namespace {

/// Adds the time from its making to its end.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  double& seconds_;
  const Clock::time_point start_ = Clock::now();
};

class TimedQueue final : public Queue {
 public:
  explicit TimedQueue(Queue& queue) : queue_(queue) {}

  const StepTimes& times() const { return times_; }

  void check_momentum(const Batch& batch) override {
    const Stopwatch stopwatch(times_.checks);
    queue_.check_momentum(batch);
  }
  void check_moments(const std::vector<Moments>& moments) override {
    const Stopwatch stopwatch(times_.checks);
    queue_.check_moments(moments);
  }
  void threshold(const Batch& batch) override {
    const Stopwatch stopwatch(times_.proximal);
    queue_.threshold(batch);
  }
  Operand proximal(const Batch& batch) override {
    const Stopwatch stopwatch(times_.proximal);
    return queue_.proximal(batch);
  }
  void soft_threshold(const Batch& batch, float* base, float* outliers) override {
    const Stopwatch stopwatch(times_.proximal);
    queue_.soft_threshold(batch, base, outliers);
  }
  Operand operand(const Batch& batch, int64_t rows, int64_t columns, Precision precision) override {
    return queue_.operand(batch, rows, columns, precision);
  }
  void gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                      const Operand& c) override {
    const Stopwatch stopwatch(times_.products);
    queue_.gemm_symmetric(out, alpha, a, b, beta, c);
  }
  void gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) override {
    const Stopwatch stopwatch(times_.products);
    queue_.gemm(out, a, b, beta, c);
  }
  void add_identity(const Operand& out, const Operand& z, float a) override {
    const Stopwatch stopwatch(times_.products);
    queue_.add_identity(out, z, a);
  }
  void update(const Batch& batch, const Operand& x) override {
    const Stopwatch stopwatch(times_.updates);
    queue_.update(batch, x);
  }
  void adamw(const std::vector<Moments>& moments) override {
    const Stopwatch stopwatch(times_.updates);
    queue_.adamw(moments);
  }

 private:
  Queue& queue_;
  StepTimes times_;
};

}  // namespace

void Profile::clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  times_ = {};
}

StepTimes Profile::times() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return times_;
}

Job Profile::timed(Job job) {
  job.enqueue = [this, enqueue = std::move(job.enqueue)](Queue& queue) {
    TimedQueue timed(queue);
    enqueue(timed);
    const StepTimes& times = timed.times();
    const std::lock_guard<std::mutex> lock(mutex_);
    times_.checks += times.checks;
    times_.proximal += times.proximal;
    times_.products += times.products;
    times_.updates += times.updates;
  };
  return job;
}

}  // namespace root_optimizer
