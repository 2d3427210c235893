#include "profile.h"

#include <chrono>
#include <utility>

namespace root_optimizer {

namespace {

class TimedQueue final : public Queue {
 public:
  explicit TimedQueue(Queue& queue) : queue_(queue) {}

  const StepTimes& times() const { return times_; }

  void check(std::span<const Batch> batches, std::span<const Moments> moments) override {
    time(times_.checks, [&] { queue_.check(batches, moments); });
  }
  void threshold(std::span<const Batch> batches) override {
    time(times_.proximal, [&] { queue_.threshold(batches); });
  }
  void proximal(std::span<const Batch> batches, std::span<Operand> x) override {
    time(times_.proximal, [&] { queue_.proximal(batches, x); });
  }
  void soft_threshold(const Batch& batch, float* base, float* outliers) override {
    time(times_.proximal, [&] { queue_.soft_threshold(batch, base, outliers); });
  }
  Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) override {
    return queue_.operand(rows, columns, count, precision, two_parts);
  }
  size_t mark() const override { return queue_.mark(); }
  void rewind(size_t mark) override { queue_.rewind(mark); }
  void gemm_symmetric(const Product& product) override {
    time(times_.products, [&] { queue_.gemm_symmetric(product); });
  }
  void gemm(const Product& product) override {
    Product alone = product;
    alone.update = nullptr;
    time(times_.products, [&] { queue_.gemm(alone); });
    if (product.update != nullptr) update({product.update, 1}, {&product.out, 1});
  }
  void add_identity(const Operand& out, const Operand& z, float a, float b) override {
    time(times_.products, [&] { queue_.add_identity(out, z, a, b); });
  }
  void update(std::span<const Batch> batches, std::span<const Operand> x) override {
    time(times_.updates, [&] { queue_.update(batches, x); });
  }
  void adamw(std::span<const Moments> moments) override {
    time(times_.updates, [&] { queue_.adamw(moments); });
  }

 private:
  template <typename Verb>
  static void time(double& seconds, Verb verb) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    verb();
    seconds += std::chrono::duration<double>(Clock::now() - start).count();
  }

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
