#include "step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"

namespace root_optimizer {

namespace {

// Passes over memory, in the currency of Job::cost: an element costs about this many FLOP's time, all passes together.
constexpr double kElementCost = 100;

// Memory of the backend that a scope owns.
template <typename T>
class Owned {
 public:
  Owned(Backend& backend, size_t count)
      : backend_(&backend), data_(static_cast<T*>(backend.allocate(count * sizeof(T)))), count_(count) {}
  Owned(Owned&& other) noexcept
      : backend_(other.backend_), data_(std::exchange(other.data_, nullptr)), count_(other.count_) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() {
    if (data_ != nullptr) backend_->release(data_);
  }

  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void read(T* host) const { backend_->read(host, data_, bytes()); }
  void write(const T* host) { backend_->write(data_, host, bytes()); }
  void fill(T value) {
    for (size_t i = 0; i < count_; ++i) backend_->write(data_ + i, &value, sizeof(T));
  }
  std::vector<T> values() const {
    std::vector<T> host(count_);
    read(host.data());
    return host;
  }

 private:
  Backend* backend_;
  T* data_;
  size_t count_;
};

std::vector<uint32_t> raised(const Owned<uint32_t>& flags) {
  std::vector<uint32_t> indices;
  const std::vector<uint32_t> values = flags.values();
  for (uint32_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) indices.push_back(i);
  }
  return indices;
}

// A product of settings that are finite each may not be.
float finite(double value, const char* name) {
  if (!(std::fabs(value) <= std::numeric_limits<float>::max())) {
    throw Error("ERR_INVALID_ARGUMENT", std::string("Expected ") + name + " to be within float32's range");
  }
  return float(value);
}

AdamWScalars scalars_of(const AdamWSettings& s) {
  return {float(1 - s.beta1),
          float(s.beta2),
          float(1 - s.beta2),
          finite(1 - s.lr * s.weight_decay, "1 - lr * weightDecay"),
          finite(s.lr / (1 - std::pow(s.beta1, double(s.step))), "lr / (1 - beta1^step)"),
          float(std::sqrt(1 - std::pow(s.beta2, double(s.step)))),
          float(s.eps)};
}

// U = the array itself.
Batch plain_batch(const float* input, float* output, double* threshold, int64_t rows, int64_t columns) {
  return {rows, columns, 0, false, {{output, nullptr, const_cast<float*>(input), threshold}}};
}

Job check_job(const Batch& batch, uint32_t* flag) {
  return {kElementCost * double(batch.size()), {}, [=](Queue& queue) { queue.check_momentum(batch, flag); }};
}

void require_finite(Backend& backend, const std::vector<Batch>& batches) {
  Owned<uint32_t> flag(backend, 1);
  std::vector<Job> jobs;
  for (const Batch& batch : batches) jobs.push_back(check_job(batch, flag.data()));
  backend.run(jobs);
  if (!raised(flag).empty()) throw Error("ERR_NON_FINITE", "Expected finite values, got NaN or an infinity");
}

}  // namespace

struct Optimizer::State {
  Owned<float> first;   // momentumBuffer, or expAvg
  Owned<float> second;  // expAvgSq
  Owned<double> thresholds;

  State(Backend& backend, const ParameterLayout& layout)
      : first(backend, layout.size),
        second(backend, layout.matrices.empty() ? layout.size : 0),
        thresholds(backend, layout.matrices.size()) {
    forget_thresholds();
  }

  void forget_thresholds() { thresholds.fill(std::numeric_limits<double>::quiet_NaN()); }

  Batch batch(const MatrixLayout& matrix, size_t index, const Arrays& arrays,
              const OrthogonalSettings& settings) const {
    return {matrix.rows,
            matrix.columns,
            float(settings.momentum),
            settings.nesterov,
            {{arrays.data + matrix.offset, arrays.gradient + matrix.offset, first.data() + matrix.offset,
              settings.threshold ? thresholds.data() + index : nullptr}}};
  }

  Moments moments(int64_t size, const Arrays& arrays) const {
    return {size, arrays.data, arrays.gradient, first.data(), second.data()};
  }
};

Optimizer::Optimizer(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters)
    : backend_(std::move(backend)), parameters_(std::move(parameters)) {
  states_.reserve(parameters_.size());
  for (const ParameterLayout& layout : parameters_) states_.emplace_back(*backend_, layout);
}

Optimizer::~Optimizer() = default;

size_t Optimizer::memory_bytes() const {
  size_t bytes = backend_->scratch_bytes();
  for (const State& state : states_) bytes += state.first.bytes() + state.second.bytes();
  return bytes;
}

std::vector<uint32_t> Optimizer::step(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings) {
  const std::vector<Job> jobs = updates(arrays, settings);
  Owned<uint32_t> flags(*backend_, parameters_.size());
  backend_->run(checks(arrays, settings, flags.data()));
  std::vector<uint32_t> non_finite = raised(flags);
  if (!non_finite.empty()) return non_finite;
  backend_->run(jobs);
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const auto* s = std::get_if<OrthogonalSettings>(&settings[p]);
    if (s != nullptr && !s->threshold) states_[p].forget_thresholds();
  }
  return {};
}

std::vector<Job> Optimizer::checks(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings,
                                   uint32_t* flags) const {
  std::vector<Job> jobs;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const ParameterLayout& layout = parameters_[p];
    uint32_t* flag = flags + p;
    if (const auto* s = std::get_if<OrthogonalSettings>(&settings[p])) {
      for (size_t i = 0; i < layout.matrices.size(); ++i) {
        jobs.push_back(check_job(states_[p].batch(layout.matrices[i], i, arrays[p], *s), flag));
      }
    } else {
      const Moments moments = states_[p].moments(layout.size, arrays[p]);
      const AdamWScalars scalars = scalars_of(std::get<AdamWSettings>(settings[p]));
      jobs.push_back(
          {kElementCost * double(layout.size), {}, [=](Queue& queue) { queue.check_moments(moments, scalars, flag); }});
    }
  }
  return jobs;
}

// The whole of ROOT. Without a threshold it is Muon.
static Job orthogonal_job(const Batch& batch, const OrthogonalSettings& s, const MatrixSettings& m) {
  const Schedule schedule = plan_newton_schulz(batch.tall(), batch.narrow(), m.coefficients);
  Footprint footprint = schedule.footprint(batch.tall(), batch.narrow());
  footprint.selection = s.threshold.has_value();
  const float decay = finite(1 - s.lr * s.weight_decay, "1 - lr * weightDecay");
  const float rate = finite(-s.lr * m.update_scale, "lr times the scale of the update");
  const double cost = schedule.flops(batch.tall(), batch.narrow()) + kElementCost * double(batch.size());
  return {cost, footprint, [=, threshold = s.threshold](Queue& queue) {
            queue.momentum(batch);
            if (threshold) queue.threshold(batch, threshold->quantile, threshold->scale);
            const Operand x = newton_schulz(queue, batch, queue.proximal(batch), schedule);
            if (decay != 1 || rate != 0)
              queue.update(batch, x, decay, rate);  // −0 + 0 is 0: to change nothing, do nothing
          }};
}

std::vector<Job> Optimizer::updates(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings) const {
  std::vector<Job> jobs;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const ParameterLayout& layout = parameters_[p];
    if (const auto* s = std::get_if<OrthogonalSettings>(&settings[p])) {
      for (size_t i = 0; i < layout.matrices.size(); ++i) {
        jobs.push_back(orthogonal_job(states_[p].batch(layout.matrices[i], i, arrays[p], *s), *s, s->matrices[i]));
      }
    } else {
      const Moments moments = states_[p].moments(layout.size, arrays[p]);
      const AdamWScalars scalars = scalars_of(std::get<AdamWSettings>(settings[p]));
      jobs.push_back({kElementCost * double(layout.size), {}, [=](Queue& queue) { queue.adamw(moments, scalars); }});
    }
  }
  return jobs;
}

void Optimizer::read_state(size_t index, float* first, float* second) const {
  states_[index].first.read(first);
  if (second != nullptr) states_[index].second.read(second);
}

void Optimizer::write_state(size_t index, const float* first, const float* second) {
  states_[index].first.write(first);
  if (second != nullptr) states_[index].second.write(second);
}

std::vector<double> Optimizer::thresholds(size_t index) const { return states_[index].thresholds.values(); }

void Optimizer::set_thresholds(size_t index, const std::vector<double>& thresholds) {
  states_[index].thresholds.write(thresholds.data());
}

void orthogonalize(Backend& backend, const float* input, float* output, const std::vector<MatrixLayout>& matrices,
                   const std::vector<std::vector<Coefficients>>& coefficients) {
  std::vector<Batch> batches;
  for (const MatrixLayout& m : matrices) {
    batches.push_back(plain_batch(input + m.offset, output + m.offset, nullptr, m.rows, m.columns));
  }
  require_finite(backend, batches);
  std::vector<Job> jobs;
  for (size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = batches[i];
    const Schedule schedule = plan_newton_schulz(batch.tall(), batch.narrow(), coefficients[i]);
    jobs.push_back({schedule.flops(batch.tall(), batch.narrow()), schedule.footprint(batch.tall(), batch.narrow()),
                    [=](Queue& queue) {
                      const Operand x = newton_schulz(queue, batch, queue.proximal(batch), schedule);
                      queue.update(batch, x, 0, 1);
                    }});
  }
  backend.run(jobs);
}

double soft_threshold(Backend& backend, const float* input, float* base, float* outliers, int64_t size,
                      Threshold threshold) {
  Owned<double> epsilon(backend, 1);
  const Batch batch = plain_batch(input, nullptr, epsilon.data(), size, 1);
  require_finite(backend, {batch});
  Footprint footprint{size, 1, 0, 0, true};
  backend.run({{kElementCost * double(size), footprint, [=](Queue& queue) {
                  queue.threshold(batch, threshold.quantile, threshold.scale);
                  queue.soft_threshold(batch, base, outliers);
                }}});
  return epsilon.values()[0];
}

}  // namespace root_optimizer
