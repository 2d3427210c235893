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

  /// What the last step found: thresholds of U, thresholds of G, the second moment of rows.
  struct Found {
    bool clips = false;
    bool clips_gradient = false;
    bool normalizes = false;

    bool operator==(const Found&) const = default;
  };
  Found found() const { return found_; }

  /// To be called before a step that is to find these. What the last step did not find is not the last step's. It is
  /// forgotten, as a checkpoint forgets it, so that a resumed run has the same bits.
  void before_step(Found next) {
    if (next.normalizes && !found_.normalizes) rows_.write(std::vector<float>(rows_.count(), 0).data());
    if (next.clips == found_.clips && next.clips_gradient == found_.clips_gradient) return;
    std::vector<Thresholds> values = thresholds_.values();
    for (Thresholds& one : values) {
      if (!found_.clips) one.threshold = 0;
      if (!found_.clips_gradient) one.gradient_threshold = one.gradient_scale = 0;
    }
    thresholds_.write(values.data());
  }
  void after_step(Found found) { found_ = found; }

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
  Found found_;
};

}  // namespace root_optimizer
