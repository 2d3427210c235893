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

/// What goes through the passes of a step together: groups of matrices, and parameters of AdamW.
struct Segment {
  std::vector<MatrixGroup> groups;
  std::vector<Moments> moments;
  std::vector<uint32_t> parameters_of_moments;

  bool empty() const { return groups.empty() && moments.empty(); }
};

Footprint footprint_of(const MatrixGroup& group);
Footprint footprint_of(const Moments& moments);

/// The check of a segment, and the update that it allows. Both cost the same, so that threads divide both alike and
/// find in their caches what the check has read.
Job check_job(const Segment& segment);
Job update_job(const Segment& segment);

/// The cost of a pass over memory, in the unit of Job::cost.
double pass_cost(int64_t elements);

}  // namespace root_optimizer
