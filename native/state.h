#pragma once

#include <limits>
#include <vector>

#include "owned.h"
#include "settings.h"

namespace root_optimizer {

/// What a step keeps of a parameter: momentum and thresholds, or AdamW's moments.
class State {
 public:
  State(Backend& backend, const ParameterLayout& layout)
      : first_(backend, size_t(layout.size)),
        second_(backend, layout.matrices.empty() ? size_t(layout.size) : 0),
        thresholds_(backend, layout.matrices.size()) {}

  float* momentum() const { return first_.data(); }
  float* exp_avg() const { return first_.data(); }
  float* exp_avg_sq() const { return second_.data(); }
  double* thresholds() const { return thresholds_.data(); }
  size_t bytes() const { return first_.bytes() + second_.bytes(); }

  /// Both buffers are as long as the parameter: momentum and null, or expAvg and expAvgSq.
  void read(float* first, float* second) const {
    first_.read(first);
    if (second != nullptr) second_.read(second);
  }
  void write(const float* first, const float* second) {
    first_.write(first);
    if (second != nullptr) second_.write(second);
  }

  /// The thresholds of the last step; NaN if it did not clip.
  std::vector<double> threshold_values() const {
    if (clipped_) return thresholds_.values();
    return std::vector<double>(thresholds_.count(), std::numeric_limits<double>::quiet_NaN());
  }
  void set_thresholds(const std::vector<double>& thresholds) {
    thresholds_.write(thresholds.data());
    clipped_ = true;
  }

  /// To be called before and after a step; `clips` tells whether the step finds thresholds. Thresholds from before a
  /// step without clipping are forgotten, as a checkpoint forgets them, so that a resumed run has the same bits.
  void before_step(bool clips) {
    if (clips && !clipped_) thresholds_.write(std::vector<double>(thresholds_.count(), 0).data());
  }
  void after_step(bool clips) { clipped_ = clips; }

 private:
  Owned<float> first_;
  Owned<float> second_;
  Owned<double> thresholds_;
  bool clipped_ = false;  // whether the last step wrote the thresholds
};

}  // namespace root_optimizer
