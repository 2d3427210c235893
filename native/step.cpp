#include "step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"
#include "jobs.h"

namespace root_optimizer {

namespace {

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

MatrixScalars scalars_of(const OrthogonalSettings& s, const MatrixSettings& m) {
  const Threshold threshold = s.threshold.value_or(Threshold{0, 0});
  return {threshold.quantile, threshold.scale, float(s.momentum),
          finite(1 - s.lr * s.weight_decay, "1 - lr * weightDecay"),
          finite(-s.lr * m.update_scale, "lr times the scale of the update")};
}

// Whether the same work serves both: they differ in numbers that jobs read when they run, if in anything.
bool same_work(const Settings& a, const Settings& b) {
  const auto* s = std::get_if<OrthogonalSettings>(&a);
  const auto* t = std::get_if<OrthogonalSettings>(&b);
  if (s == nullptr || t == nullptr) return s == t;
  const auto same_products = [](const MatrixSettings& m, const MatrixSettings& n) {
    return m.coefficients == n.coefficients;
  };
  return s->nesterov == t->nesterov && s->threshold.has_value() == t->threshold.has_value() &&
         std::equal(s->matrices.begin(), s->matrices.end(), t->matrices.begin(), t->matrices.end(), same_products);
}

bool same_work(const std::vector<Settings>& a, const std::vector<Settings>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Settings& s, const Settings& t) { return same_work(s, t); });
}

bool same_arrays(const std::vector<Arrays>& a, const std::vector<Arrays>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Arrays& x, const Arrays& y) { return x.data == y.data && x.gradient == y.gradient; });
}

}  // namespace

struct Optimizer::State {
  Owned<float> first;   // momentumBuffer, or expAvg
  Owned<float> second;  // expAvgSq
  Owned<double> thresholds;
  Owned<Clip> clips;
  bool clipped = false;  // whether the last step wrote the thresholds

  State(Backend& backend, const ParameterLayout& layout)
      : first(backend, layout.size),
        second(backend, layout.matrices.empty() ? layout.size : 0),
        thresholds(backend, layout.matrices.size()),
        clips(backend, layout.matrices.size()) {}
};

// The numbers of a step for all matrices and all of AdamW's parameters, parameter by parameter, and the step's flags.
struct Optimizer::Scalars {
  Owned<MatrixScalars> matrices;
  Owned<AdamWScalars> adamw;
  Owned<uint32_t> flags;
  std::vector<size_t> first;  // of each parameter, in its own list

  Scalars(Backend& backend, const std::vector<ParameterLayout>& parameters)
      : Scalars(backend, parameters, count(parameters)) {}

  void write(const std::vector<Settings>& settings) {
    std::vector<MatrixScalars> of_matrices;
    std::vector<AdamWScalars> of_adamw;
    for (const Settings& one : settings) {
      if (const auto* s = std::get_if<OrthogonalSettings>(&one)) {
        for (const MatrixSettings& m : s->matrices) of_matrices.push_back(scalars_of(*s, m));
      } else {
        of_adamw.push_back(scalars_of(std::get<AdamWSettings>(one)));
      }
    }
    matrices.write(of_matrices.data());
    adamw.write(of_adamw.data());
  }

 private:
  struct Count {
    size_t matrices = 0;
    size_t adamw = 0;
    std::vector<size_t> first;
  };

  static Count count(const std::vector<ParameterLayout>& parameters) {
    Count count;
    for (const ParameterLayout& layout : parameters) {
      size_t& list = layout.matrices.empty() ? count.adamw : count.matrices;
      count.first.push_back(list);
      list += std::max<size_t>(layout.matrices.size(), 1);
    }
    return count;
  }

  Scalars(Backend& backend, const std::vector<ParameterLayout>& parameters, Count count)
      : matrices(backend, count.matrices),
        adamw(backend, count.adamw),
        flags(backend, parameters.size()),
        first(std::move(count.first)) {}
};

Optimizer::Optimizer(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters, bool profiled)
    : backend_(std::move(backend)),
      parameters_(std::move(parameters)),
      profile_(profiled ? std::make_unique<Profile>() : nullptr) {
  std::vector<int64_t> sizes;
  for (const ParameterLayout& layout : parameters_) sizes.push_back(layout.size);
  backend_->hold(sizes);
  states_.reserve(parameters_.size());
  for (const ParameterLayout& layout : parameters_) states_.emplace_back(*backend_, layout);
  scalars_ = std::make_unique<Scalars>(*backend_, parameters_);
}

Optimizer::~Optimizer() = default;

size_t Optimizer::memory_bytes() const {
  size_t bytes = backend_->held_bytes();
  for (const State& state : states_) bytes += state.first.bytes() + state.second.bytes();
  return bytes;
}

std::vector<uint32_t> Optimizer::step(const std::vector<Arrays>& host, const std::vector<Settings>& settings) {
  const std::vector<Arrays> arrays = backend_->held(host);
  if (plan_.version == 0 || !same_arrays(arrays, planned_arrays_) || !same_work(settings, planned_settings_)) {
    Plan plan = make_plan(arrays, settings);
    plan.version = plan_.version + 1;
    plan_ = std::move(plan);
    planned_arrays_ = arrays;
    planned_settings_ = settings;
  }
  if (profile_ != nullptr) profile_->clear();
  scalars_->write(settings);
  forget_thresholds(settings);
  const std::vector<uint32_t> flags = backend_->step(plan_, host);
  std::vector<uint32_t> raised;
  for (uint32_t p = 0; p < flags.size(); ++p) {
    if (flags[p] != 0) raised.push_back(p);
  }
  if (!raised.empty()) return raised;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const auto* s = std::get_if<OrthogonalSettings>(&settings[p]);
    states_[p].clipped = s != nullptr && s->threshold.has_value();
  }
  return {};
}

// Thresholds from before a time without clipping are not the last step's. A checkpoint keeps none of them either, and
// the steps after it are to be the same bits.
void Optimizer::forget_thresholds(const std::vector<Settings>& settings) {
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const auto* s = std::get_if<OrthogonalSettings>(&settings[p]);
    if (s == nullptr || !s->threshold || states_[p].clipped) continue;
    states_[p].thresholds.write(std::vector<double>(parameters_[p].matrices.size(), 0).data());
  }
}

// The whole of ROOT. Without a threshold it is Muon.
static Job orthogonal_job(const Group& group) {
  const Footprint footprint = group.footprint();
  const double elements = double(group.batch.size()) * double(footprint.items);
  return {group.flops() + kElementCost * elements, footprint, group.parameters,
          [batch = group.batch, schedule = group.schedule](Queue& queue) {
            const Operand x = newton_schulz(queue, batch, queue.proximal(batch), schedule);
            queue.update(batch, x);
          }};
}

Plan Optimizer::make_plan(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings) const {
  Plan plan;
  plan.flags = scalars_->flags.data();
  add_matrix_jobs(plan, arrays, settings);
  add_moment_jobs(plan, arrays);
  if (profile_ != nullptr) {
    for (Job& job : plan.checks) job = profile_->timed(std::move(job));
    for (Job& job : plan.updates) job = profile_->timed(std::move(job));
  }
  return plan;
}

void Optimizer::add_matrix_jobs(Plan& plan, const std::vector<Arrays>& arrays,
                                const std::vector<Settings>& settings) const {
  std::vector<Member> members;
  for (uint32_t p = 0; p < parameters_.size(); ++p) {
    const auto* s = std::get_if<OrthogonalSettings>(&settings[p]);
    for (size_t i = 0; i < parameters_[p].matrices.size(); ++i) {
      const MatrixLayout& m = parameters_[p].matrices[i];
      const Item item{arrays[p].data + m.offset,
                      arrays[p].gradient + m.offset,
                      states_[p].first.data() + m.offset,
                      s->threshold ? states_[p].thresholds.data() + i : nullptr,
                      scalars_->matrices.data() + scalars_->first[p] + i,
                      plan.flags + p,
                      states_[p].clips.data() + i};
      members.push_back({item, m.rows, m.columns, s->nesterov, &s->matrices[i].coefficients, p});
    }
  }
  for (const Group& group : grouped(*backend_, members)) {
    const Job job = orthogonal_job(group);
    plan.checks.push_back(check_job(group.batch, job.cost));
    plan.updates.push_back(job);
  }
}

void Optimizer::add_moment_jobs(Plan& plan, const std::vector<Arrays>& arrays) const {
  const int64_t limit = backend_->batch_limit({});
  std::vector<Moments> moments;
  std::vector<uint32_t> indices;
  const auto add_jobs = [&] {
    double cost = 0;
    for (const Moments& one : moments) cost += kElementCost * double(one.size);
    plan.checks.push_back({cost, {}, {}, [=](Queue& queue) { queue.check_moments(moments); }});
    plan.updates.push_back({cost, {}, indices, [=](Queue& queue) { queue.adamw(moments); }});
    moments.clear();
    indices.clear();
  };
  for (uint32_t p = 0; p < parameters_.size(); ++p) {
    if (!parameters_[p].matrices.empty()) continue;
    moments.push_back({parameters_[p].size, arrays[p].data, arrays[p].gradient, states_[p].first.data(),
                       states_[p].second.data(), scalars_->adamw.data() + scalars_->first[p], plan.flags + p});
    indices.push_back(p);
    if (int64_t(moments.size()) == limit) add_jobs();
  }
  if (!moments.empty()) add_jobs();
}

void Optimizer::read_state(size_t index, float* first, float* second) const {
  states_[index].first.read(first);
  if (second != nullptr) states_[index].second.read(second);
}

void Optimizer::write_state(size_t index, const float* first, const float* second) {
  states_[index].first.write(first);
  if (second != nullptr) states_[index].second.write(second);
}

std::vector<double> Optimizer::thresholds(size_t index) const {
  const State& state = states_[index];
  if (state.clipped) return state.thresholds.values();
  return std::vector<double>(parameters_[index].matrices.size(), std::numeric_limits<double>::quiet_NaN());
}

void Optimizer::set_thresholds(size_t index, const std::vector<double>& thresholds) {
  states_[index].thresholds.write(thresholds.data());
  states_[index].clipped = true;
}

}  // namespace root_optimizer
