#include "optimizer.h"

#include <algorithm>

namespace root_optimizer {

namespace {

ParameterStore* make_store(Backend& backend, const std::vector<ParameterLayout>& parameters) {
  std::vector<int64_t> sizes;
  for (const ParameterLayout& layout : parameters) sizes.push_back(layout.size);
  return backend.make_store(sizes, sizes.size());
}

std::vector<State> make_states(Backend& backend, const std::vector<ParameterLayout>& parameters) {
  std::vector<State> states;
  states.reserve(parameters.size());
  for (const ParameterLayout& layout : parameters) states.emplace_back(backend, layout);
  return states;
}

State::Found to_be_found(const Settings& settings) {
  State::Found found;
  found.clips_gradient = std::visit([](const auto& s) { return s.gradient_threshold.has_value(); }, settings);
  if (const OrthogonalSettings* s = orthogonal(settings)) {
    found.clips = s->threshold.has_value();
    found.normalizes = s->normalize.has_value();
  }
  return found;
}

// Whether one plan serves both settings: they differ at most in numbers that jobs read when they run.
bool same_plan(const Settings& a, const Settings& b) {
  const OrthogonalSettings* s = orthogonal(a);
  const OrthogonalSettings* t = orthogonal(b);
  if (!(to_be_found(a) == to_be_found(b))) return false;
  if (s == nullptr || t == nullptr) return s == t;
  const auto same_products = [](const MatrixSettings& m, const MatrixSettings& n) {
    return m.coefficients == n.coefficients;
  };
  return s->nesterov == t->nesterov &&
         std::equal(s->matrices.begin(), s->matrices.end(), t->matrices.begin(), t->matrices.end(), same_products);
}

bool same_plan(const std::vector<Settings>& a, const std::vector<Settings>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Settings& s, const Settings& t) { return same_plan(s, t); });
}

bool same_arrays(const std::vector<Arrays>& a, const std::vector<Arrays>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Arrays& x, const Arrays& y) { return x.data == y.data && x.gradient == y.gradient; });
}

}  // namespace

Optimizer::Optimizer(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters)
    : backend_(std::move(backend)),
      parameters_(std::move(parameters)),
      store_(make_store(*backend_, parameters_)),
      states_(make_states(*backend_, parameters_)),
      scalars_(*backend_, parameters_) {}

size_t Optimizer::memory_bytes() const {
  size_t bytes = backend_->memory_bytes();
  for (const State& state : states_) bytes += state.bytes();
  return bytes;
}

void Optimizer::profile() {
  profile_ = std::make_unique<Profile>();
  planned_arrays_.clear();  // so that the next step makes a plan of timed jobs
}

std::vector<uint32_t> Optimizer::step(const std::vector<Arrays>& host, const std::vector<Settings>& settings) {
  const std::vector<Arrays>& arrays = placed(store_, host);
  const bool travels = store_ != nullptr && !host.empty();
  if (plan_.version == 0 || travels != planned_travels_ || !same_arrays(arrays, planned_arrays_) ||
      !same_plan(settings, planned_settings_)) {
    Plan plan = plan_for(arrays, settings, travels);
    std::vector<Arrays> new_arrays = arrays;
    std::vector<Settings> new_settings = settings;
    plan.version = plan_.version + 1;
    plan_ = std::move(plan);
    planned_arrays_ = std::move(new_arrays);
    planned_settings_ = std::move(new_settings);
    planned_travels_ = travels;
  }
  if (profile_ != nullptr) profile_->clear();
  scalars_.write(settings);
  for (size_t p = 0; p < states_.size(); ++p) states_[p].before_step(to_be_found(settings[p]));

  const std::vector<uint32_t> flags = backend_->step(plan_, host);
  std::vector<uint32_t> refused;
  for (uint32_t p = 0; p < flags.size(); ++p) {
    if (flags[p] != 0) refused.push_back(p);
  }
  if (!refused.empty()) return refused;
  for (size_t p = 0; p < states_.size(); ++p) states_[p].after_step(to_be_found(settings[p]));
  return {};
}

Plan Optimizer::plan_for(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings, bool travels) {
  std::vector<Member> matrices;
  std::vector<MomentsMember> moments;
  for (uint32_t p = 0; p < parameters_.size(); ++p) {
    const ParameterLayout& layout = parameters_[p];
    State& state = states_[p];
    const bool clips_gradient = to_be_found(settings[p]).clips_gradient;
    const OrthogonalSettings* s = orthogonal(settings[p]);
    if (s == nullptr) {
      moments.push_back({.moments = {.size = layout.size,
                                     .data = arrays[p].data,
                                     .gradient = arrays[p].gradient,
                                     .exp_avg = state.exp_avg().data(),
                                     .exp_avg_sq = state.exp_avg_sq().data(),
                                     .thresholds = clips_gradient ? state.thresholds().data() : nullptr,
                                     .scalars = scalars_.adamw_of(p),
                                     .flag = scalars_.flags() + p},
                         .parameter = p});
      continue;
    }
    float* row_second_moment = state.row_second_moment().data();
    for (size_t i = 0; i < layout.matrices.size(); ++i) {
      const MatrixLayout& m = layout.matrices[i];
      matrices.push_back({.matrix = {.data = arrays[p].data + m.offset,
                                     .gradient = arrays[p].gradient + m.offset,
                                     .momentum = state.momentum().data() + m.offset,
                                     .row_second_moment = s->normalize ? row_second_moment : nullptr,
                                     .thresholds = state.thresholds().data() + i,
                                     .scalars = scalars_.matrices_of(p) + i,
                                     .flag = scalars_.flags() + p},
                          .kind = {.rows = m.rows,
                                   .columns = m.columns,
                                   .nesterov = s->nesterov,
                                   .clips = s->threshold.has_value(),
                                   .clips_gradient = clips_gradient,
                                   .normalized = s->normalize.has_value(),
                                   .in_out = s->normalize.has_value() && m.in_out,
                                   .matrices = {}},
                          .coefficients = &s->matrices[i].coefficients,
                          .parameter = p});
      row_second_moment += m.normalized_rows();
    }
  }
  Plan plan = make_plan(*backend_, std::move(matrices), std::move(moments), travels);
  plan.flags = scalars_.flags();
  plan.parameters = parameters_.size();
  if (profile_ != nullptr) {
    for (std::vector<Job>* jobs : {&plan.checks, &plan.updates}) {
      for (Job& job : *jobs) job = profile_->timed(std::move(job));
    }
  }
  return plan;
}

}  // namespace root_optimizer
