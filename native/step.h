#pragma once

#include <vector>

#include "backend.h"
#include "newton_schulz.h"

namespace root_optimizer {

/// Matrices of one shape, the products that orthogonalise each of them, and the parameters that they belong to, each
/// once.
struct MatrixGroup {
  Batch batch;
  ProductPlan products;
  std::vector<uint32_t> parameters;
};

/// The update of ROOT and Muon, and the check that allows it. Both cost the same, so that threads divide both alike and
/// find in their caches what the check has read.
Job orthogonal_job(const MatrixGroup& group);
Job orthogonal_check(const MatrixGroup& group);

/// AdamW's update, and the check that allows it.
Job adamw_job(const std::vector<Moments>& moments, const std::vector<uint32_t>& parameters);
Job adamw_check(const std::vector<Moments>& moments);

/// The cost of a pass over memory, in the unit of Job::cost.
double pass_cost(int64_t elements);

}  // namespace root_optimizer
