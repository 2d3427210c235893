#pragma once

#include <algorithm>
#include <vector>

#include "owned.h"
#include "settings.h"

namespace root_optimizer {

/// What a parameter's step remembers. ROOT and Muon: the momentum, and for each matrix its thresholds and the second
/// moment of its rows. AdamW: both moments, and the thresholds of the whole parameter.
class State {
 public:
  State(Backend& backend, const ParameterLayout& layout)
      : first_(backend, size_t(layout.size)),
        second_(backend, layout.matrices.empty() ? size_t(layout.size) : 0),
        rows_(backend, row_count(layout)),
        thresholds_(backend, std::max<size_t>(layout.matrices.size(), 1)) {}

  Owned<float>& momentum() { return first_; }
  Owned<float>& exp_avg() { return first_; }
  Owned<float>& exp_avg_sq() { return second_; }
  /// Matrix after matrix.
  Owned<float>& row_second_moment() { return rows_; }
  Owned<Thresholds>& thresholds() { return thresholds_; }
  size_t bytes() const { return first_.bytes() + second_.bytes() + rows_.bytes(); }

  /// To be called before a step that finds thresholds or does not. Thresholds from before a step without clipping are
  /// forgotten, as a checkpoint forgets them, so that a resumed run has the same bits.
  void before_step(bool clips, bool clips_gradient) {
    if (clips == clips_ && clips_gradient == clips_gradient_) return;
    std::vector<Thresholds> values = thresholds_.values();
    for (Thresholds& one : values) {
      if (!clips_) one.threshold = 0;
      if (!clips_gradient_) one.gradient_threshold = one.gradient_scale = 0;
    }
    thresholds_.write(values.data());
  }
  void after_step(bool clips, bool clips_gradient) {
    clips_ = clips;
    clips_gradient_ = clips_gradient;
  }

  /// Whether the last step found the thresholds of U, and those of G.
  bool clips() const { return clips_; }
  bool clips_gradient() const { return clips_gradient_; }

 private:
  static size_t row_count(const ParameterLayout& layout) {
    size_t count = 0;
    for (const MatrixLayout& matrix : layout.matrices) count += size_t(matrix.normalized_rows());
    return count;
  }

  Owned<float> first_;
  Owned<float> second_;
  Owned<float> rows_;
  Owned<Thresholds> thresholds_;
  bool clips_ = false;
  bool clips_gradient_ = false;
};

}  // namespace root_optimizer
