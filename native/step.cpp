#include "step.h"

#include <span>

namespace root_optimizer {

// A step of ROOT for matrices of one shape. Muon's has no 4. Steps 1, 7 and 8 are options of both; 7 and 8 are
// NorMuon's.
//
//   1  G ← f · clamp(G, −ε_G, ε_G)        ε_G = scale · quantile of |G|, f = min(1, growth · e / ε_G)
//   2  M ← μM + G                         momentum
//   3  U = G + μM                         look-ahead; M itself without Nesterov
//   4  B = clamp(U, −ε, ε)                proximal step, ε = scale · quantile of |U|: the outliers U − B are left out
//   5  X ← B / ‖B‖
//   6  X ← aX + X(bXᵀX + c(XᵀX)²)         Newton-Schulz, once for each iteration
//   7  v ← β₂v + (1 − β₂)·mean of X²      by rows
//   8  X ← X / √v                         scaled back to the norm that it had
//   9  θ ← (1 − lr·λ)·θ − lr·s·X          update
static void step_root(Queue& queue, std::span<const MatrixGroup> groups, std::span<const Batch> batches) {
  std::vector<Operand> x;
  for (const MatrixGroup& group : groups) x.push_back({.two_parts = group.products.split_legs > 0});
  queue.proximal(batches, x);                                                                             // 1 to 5
  for (size_t i = 0; i < groups.size(); ++i) newton_schulz(queue, groups[i].products, batches[i], x[i]);  // 6 to 9
}

static std::vector<Batch> batches_of(const Segment& segment) {
  std::vector<Batch> batches;
  for (const MatrixGroup& group : segment.groups) batches.push_back(group.batch);
  return batches;
}

double pass_cost(int64_t elements) {
  constexpr double kFlopOfAnElement = 100;  // the time that all passes over one element take, in FLOP of products
  return kFlopOfAnElement * double(elements);
}

Footprint footprint_of(const MatrixGroup& group) {
  const Batch& batch = group.batch;
  Footprint footprint = group.products.footprint(batch.rows, batch.columns, batch.count());
  footprint.selects = batch.clips || batch.clips_gradient;
  footprint.near_last = footprint.selects;
  footprint.normalizes = batch.normalized;
  return footprint;
}

Footprint footprint_of(const Moments& moments) {
  const bool selects = moments.thresholds != nullptr;
  return {.long_side = moments.size, .short_side = 1, .selects = selects, .near_last = selects};
}

// A job of the segment that has still to be told its work.
static Job job_of(const Segment& segment) {
  Job job;
  for (const MatrixGroup& group : segment.groups) {
    const Batch& batch = group.batch;
    job.cost += group.products.flops(batch.rows, batch.columns) * double(batch.count()) +
                pass_cost(batch.size() * batch.count());
    job.footprints.push_back(footprint_of(group));
    job.parameters.insert(job.parameters.end(), group.parameters.begin(), group.parameters.end());
  }
  for (const Moments& moments : segment.moments) {
    job.cost += pass_cost(moments.size);
    job.footprints.push_back(footprint_of(moments));
  }
  job.parameters.insert(job.parameters.end(), segment.parameters_of_moments.begin(),
                        segment.parameters_of_moments.end());
  return job;
}

// The checks of all parameters come before the first update, so that a step happens whole or not at all. They ask
// whether M and U, or AdamW's moments, would stay finite.
Job check_job(const Segment& segment) {
  Job job = job_of(segment);
  job.enqueue = [batches = batches_of(segment), moments = segment.moments](Queue& queue) {
    queue.check(batches, moments);
  };
  return job;
}

Job update_job(const Segment& segment) {
  Job job = job_of(segment);
  job.enqueue = [segment, batches = batches_of(segment)](Queue& queue) {
    if (!batches.empty()) step_root(queue, segment.groups, batches);
    if (!segment.moments.empty()) queue.adamw(segment.moments);
  };
  return job;
}

}  // namespace root_optimizer
