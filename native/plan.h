#pragma once

#include <cstdint>
#include <vector>

#include "step.h"

namespace root_optimizer {

/// A matrix that is not yet in a group.
struct Member {
  Matrix matrix;
  Batch kind;  ///< the batch that it goes into, still without matrices
  const std::vector<Coefficients>* coefficients = nullptr;
  uint32_t parameter = 0;
};

/// A parameter of AdamW that is not yet in a group.
struct MomentsMember {
  Moments moments;
  uint32_t parameter = 0;
};

/// Makes the jobs of a step. Matrices that share shape and settings form as few groups as the backend's limit allows.
/// The groups of one kind are as even as they can be. Numbers the matrices in their order.
Plan make_plan(const Backend& backend, std::vector<Member> matrices, const std::vector<MomentsMember>& moments);

}  // namespace root_optimizer
