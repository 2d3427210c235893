#pragma once

#include <cstdint>
#include <vector>

#include "step.h"

namespace root_optimizer {

/// A matrix before it has found others to go through its job with.
struct Member {
  Matrix matrix;
  int64_t rows = 0;
  int64_t columns = 0;
  bool nesterov = false;
  const std::vector<Coefficients>* coefficients = nullptr;
  uint32_t parameter = 0;
};

/// A parameter before the same.
struct MomentsMember {
  Moments moments;
  uint32_t parameter = 0;
};

/// The jobs of a step: matrices that share shape and settings in as few groups as the backend's limit allows, groups of
/// one kind as even as they can be. Numbers the matrices in their order.
Plan make_plan(const Backend& backend, std::vector<Member> matrices, const std::vector<MomentsMember>& moments);

}  // namespace root_optimizer
