#include "scalars.h"

#include <cmath>
#include <limits>
#include <string>

#include "error.h"

namespace root_optimizer {

namespace {

// Settings are finite; a product of them may not be.
float finite(double value, const char* name) {
  if (!(std::fabs(value) <= std::numeric_limits<float>::max())) {
    throw Error("ERR_INVALID_ARGUMENT", std::string("Expected ") + name + " to be within float32's range");
  }
  return float(value);
}

GradientScalars scalars_of(const std::optional<GradientThreshold>& threshold) {
  if (!threshold) return {};
  return {.quantile = threshold->quantile, .scale = threshold->scale, .growth = threshold->growth};
}

AdamWScalars scalars_of(const AdamWSettings& s) {
  return {.gradient = scalars_of(s.gradient_threshold),
          .beta1_complement = float(1 - s.beta1),
          .beta2 = float(s.beta2),
          .beta2_complement = float(1 - s.beta2),
          .decay = finite(1 - s.lr * s.weight_decay, "1 - lr * weightDecay"),
          .step_size = finite(s.lr / (1 - std::pow(s.beta1, double(s.step))), "lr / (1 - beta1^step)"),
          .correction2_root = float(std::sqrt(1 - std::pow(s.beta2, double(s.step)))),
          .eps = float(s.eps),
          .cautious = s.cautious};
}

MatrixScalars scalars_of(const OrthogonalSettings& s, const MatrixSettings& m) {
  const Threshold threshold = s.threshold.value_or(Threshold{.quantile = 0, .scale = 0});
  return {.quantile = threshold.quantile,
          .scale = threshold.scale,
          .gradient = scalars_of(s.gradient_threshold),
          .mu = float(s.momentum),
          .beta2 = float(s.normalize.value_or(0)),
          .decay = finite(1 - s.lr * s.weight_decay, "1 - lr * weightDecay"),
          .rate = finite(-s.lr * m.update_scale, "lr times the scale of the update"),
          .cautious = s.cautious};
}

struct Counts {
  size_t matrices = 0;
  size_t adamw = 0;
};

Counts counts_of(const std::vector<ParameterLayout>& parameters) {
  Counts counts;
  for (const ParameterLayout& layout : parameters) {
    counts.matrices += layout.matrices.size();
    counts.adamw += layout.matrices.empty();
  }
  return counts;
}

}  // namespace

Scalars::Scalars(Backend& backend, const std::vector<ParameterLayout>& parameters)
    : matrices_(backend, counts_of(parameters).matrices),
      adamw_(backend, counts_of(parameters).adamw),
      flags_(backend, parameters.size()) {
  Counts before;
  for (const ParameterLayout& layout : parameters) {
    first_.push_back(layout.matrices.empty() ? before.adamw++ : before.matrices);
    before.matrices += layout.matrices.size();
  }
}

void Scalars::write(const std::vector<Settings>& settings) {
  std::vector<MatrixScalars> matrices;
  std::vector<AdamWScalars> adamw;
  for (const Settings& one : settings) {
    if (const OrthogonalSettings* s = orthogonal(one)) {
      for (const MatrixSettings& m : s->matrices) matrices.push_back(scalars_of(*s, m));
    } else {
      adamw.push_back(scalars_of(std::get<AdamWSettings>(one)));
    }
  }
  matrices_.write(matrices.data());
  adamw_.write(adamw.data());
}

}  // namespace root_optimizer
