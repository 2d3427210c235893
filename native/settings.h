#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "newton_schulz.h"

namespace root_optimizer {

/// A matrix inside a parameter's array: elements [offset, offset + rows · columns), row-major.
struct MatrixLayout {
  int64_t offset = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  bool in_out = false;  ///< whether its columns are what `normalize` takes for rows

  int64_t size() const { return rows * columns; }
  int64_t normalized_rows() const { return in_out ? columns : rows; }
};

/// A parameter that has no matrices is AdamW's.
struct ParameterLayout {
  int64_t size = 0;
  std::vector<MatrixLayout> matrices;
};

struct Threshold {
  double quantile = 0;
  double scale = 1;
};

struct GradientThreshold {
  double quantile = 0;
  double scale = 1;
  double growth = 0;  ///< infinite: no limit
};

struct MatrixSettings {
  double update_scale = 1;  ///< s
  std::vector<Coefficients> coefficients;
};

/// A step's settings for a parameter that ROOT or Muon updates.
struct OrthogonalSettings {
  double lr = 0;
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool cautious = false;
  std::optional<Threshold> threshold;
  std::optional<GradientThreshold> gradient_threshold;
  std::optional<double> normalize;  ///< β₂; absent: rows are not normalized
  std::vector<MatrixSettings> matrices;
};

struct AdamWSettings {
  double lr = 0;
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double weight_decay = 0;
  bool cautious = false;
  std::optional<GradientThreshold> gradient_threshold;
  int64_t step = 1;  ///< counts from 1
};

using Settings = std::variant<OrthogonalSettings, AdamWSettings>;

/// Null for a parameter that AdamW updates.
inline const OrthogonalSettings* orthogonal(const Settings& settings) {
  return std::get_if<OrthogonalSettings>(&settings);
}

}  // namespace root_optimizer
