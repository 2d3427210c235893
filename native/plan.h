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

/// Makes the jobs of a step: as few segments as the backend takes. Matrices of a segment that share shape and settings
/// form a group. Numbers the matrices in their order, and then the moments. `travels`: whether data go to the host
/// after every step.
Plan make_plan(const Backend& backend, std::vector<Member> matrices, std::vector<MomentsMember> moments, bool travels);

}  // namespace root_optimizer
