#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "backend.h"
#include "newton_schulz.h"
#include "profile.h"

namespace root_optimizer {

struct MatrixLayout {
  int64_t offset, rows, columns;
};

/// No matrices: the parameter is AdamW's.
struct ParameterLayout {
  int64_t size;
  std::vector<MatrixLayout> matrices;
};

struct Threshold {
  double quantile, scale;
};

struct MatrixSettings {
  double update_scale;
  std::vector<Coefficients> coefficients;
};

struct OrthogonalSettings {
  double lr, momentum, weight_decay;
  bool nesterov;
  std::optional<Threshold> threshold;
  std::vector<MatrixSettings> matrices;
};

struct AdamWSettings {
  double lr, beta1, beta2, eps, weight_decay;
  int64_t step;
};

using Settings = std::variant<OrthogonalSettings, AdamWSettings>;

/// The state of a list of parameters and the step that advances it.
class Optimizer {
 public:
  /// `profiled`: `step_times` tells what the last step took; for backends that share the host's memory.
  Optimizer(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters, bool profiled);
  ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  const Backend& backend() const { return *backend_; }
  Backend& backend() { return *backend_; }
  const std::vector<ParameterLayout>& parameters() const { return parameters_; }
  /// State, scratch and what else the backend holds.
  size_t memory_bytes() const;

  /// Returns the parameters that would not stay finite. Unless there are none, or where it throws, nothing has changed.
  /// No arrays: the step works on what the backend holds.
  std::vector<uint32_t> step(const std::vector<Arrays>& host, const std::vector<Settings>& settings);

  StepTimes step_times() const { return profile_ == nullptr ? StepTimes{} : profile_->times(); }

  /// Both buffers are `size` long: momentumBuffer alone, or expAvg and expAvgSq.
  void read_state(size_t index, float* first, float* second) const;
  void write_state(size_t index, const float* first, const float* second);
  std::vector<double> thresholds(size_t index) const;
  void set_thresholds(size_t index, const std::vector<double>& thresholds);

 private:
  struct State;
  struct Scalars;

  void forget_thresholds(const std::vector<Settings>& settings);
  Plan make_plan(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings) const;
  void add_matrix_jobs(Plan& plan, const std::vector<Arrays>& arrays, const std::vector<Settings>& settings) const;
  void add_moment_jobs(Plan& plan, const std::vector<Arrays>& arrays) const;

  std::unique_ptr<Backend> backend_;
  std::vector<ParameterLayout> parameters_;
  std::vector<State> states_;
  std::unique_ptr<Scalars> scalars_;
  std::unique_ptr<Profile> profile_;
  // The plan of the last step, and what it was made of.
  Plan plan_;
  std::vector<Arrays> planned_arrays_;
  std::vector<Settings> planned_settings_;
};

}  // namespace root_optimizer
