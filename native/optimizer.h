#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plan.h"
#include "profile.h"
#include "scalars.h"
#include "settings.h"
#include "state.h"

namespace root_optimizer {

/// Where jobs find parameters: in the store, or in the host's own arrays if there is no store.
inline const std::vector<Arrays>& placed(const ParameterStore* store, const std::vector<Arrays>& host) {
  return store == nullptr ? host : store->arrays;
}

/// The state of a list of parameters, and the step that advances it.
class Optimizer {
 public:
  Optimizer(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters);

  const std::vector<ParameterLayout>& parameters() const { return parameters_; }
  /// Null if parameters live in the host's arrays alone.
  ParameterStore* store() const { return store_; }
  State& state(size_t parameter) { return states_[parameter]; }
  Backend& backend() { return *backend_; }
  /// The memory of state, scratch and the store.
  size_t memory_bytes() const;

  /// Returns the parameters that would not stay finite. If there are any, or if it throws, nothing has changed. Without
  /// arrays the step works on what the store holds.
  std::vector<uint32_t> step(const std::vector<Arrays>& host, const std::vector<Settings>& settings);

  /// From now on `step_times` tells what the last step took. For backends whose verbs run at once, as the CPU's do.
  void profile();
  StepTimes step_times() const { return profile_ == nullptr ? StepTimes{} : profile_->times(); }

 private:
  Plan plan_for(const std::vector<Arrays>& arrays, const std::vector<Settings>& settings, bool travels);

  std::unique_ptr<Backend> backend_;
  std::vector<ParameterLayout> parameters_;
  ParameterStore* store_;
  std::vector<State> states_;
  Scalars scalars_;
  std::unique_ptr<Profile> profile_;
  // The plan of the last step, and what it was made of.
  Plan plan_;
  std::vector<Arrays> planned_arrays_;
  std::vector<Settings> planned_settings_;
  bool planned_travels_ = false;  // whether data go to the host after every step
};

}  // namespace root_optimizer
