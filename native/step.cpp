#include "step.h"

#include <algorithm>
#include <utility>

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
static void step_root(Queue& queue, const Batch& batch, const ProductPlan& products) {
  Operand x{.two_parts = products.split_legs > 0};
  queue.proximal({&batch, 1}, {&x, 1});      // 1 to 5
  newton_schulz(queue, products, batch, x);  // 6 to 9
}

// The checks of all parameters come before the first update, so that a step happens whole or not at all. They ask
// whether M and U, or AdamW's moments, would stay finite.
static void check_root(Queue& queue, const Batch& batch) { queue.check_matrices({&batch, 1}); }

double pass_cost(int64_t elements) {
  constexpr double kFlopOfAnElement = 100;  // the time that all passes over one element take, in FLOP of products
  return kFlopOfAnElement * double(elements);
}

static double cost_of(const MatrixGroup& group) {
  const Batch& batch = group.batch;
  return group.products.flops(batch.rows, batch.columns) * double(batch.count()) +
         pass_cost(batch.size() * batch.count());
}

static Footprint footprint_of(const MatrixGroup& group) {
  const Batch& batch = group.batch;
  Footprint footprint = group.products.footprint(batch.rows, batch.columns, batch.count());
  footprint.selects = batch.clips || batch.clips_gradient;
  footprint.near_last = footprint.selects;
  footprint.normalizes = batch.normalized;
  return footprint;
}

Job orthogonal_job(const MatrixGroup& group) {
  auto enqueue = [batch = group.batch, products = group.products](Queue& queue) { step_root(queue, batch, products); };
  return {.cost = cost_of(group),
          .footprint = footprint_of(group),
          .parameters = group.parameters,
          .enqueue = std::move(enqueue)};
}

Job orthogonal_check(const MatrixGroup& group) {
  auto enqueue = [batch = group.batch](Queue& queue) { check_root(queue, batch); };
  Footprint footprint = footprint_of(group);
  footprint.matrix_operands = 0;
  footprint.square_operands = 0;
  return {.cost = cost_of(group), .footprint = footprint, .parameters = {}, .enqueue = std::move(enqueue)};
}

static double cost_of(const std::vector<Moments>& moments) {
  double cost = 0;
  for (const Moments& one : moments) cost += pass_cost(one.size);
  return cost;
}

Job adamw_job(const std::vector<Moments>& moments, const std::vector<uint32_t>& parameters) {
  auto enqueue = [=](Queue& queue) { queue.adamw(moments); };
  return {.cost = cost_of(moments), .footprint = {}, .parameters = parameters, .enqueue = std::move(enqueue)};
}

// A backend may look for the thresholds of all parameters at once.
static Footprint footprint_of(const std::vector<Moments>& moments) {
  Footprint footprint{.short_side = 1, .count = int64_t(moments.size())};
  for (const Moments& one : moments) {
    footprint.selects |= one.thresholds != nullptr;
    footprint.long_side = std::max(footprint.long_side, one.size);
  }
  return footprint.selects ? footprint : Footprint{};
}

Job adamw_check(const std::vector<Moments>& moments) {
  auto enqueue = [=](Queue& queue) { queue.check_moments(moments); };
  return {
      .cost = cost_of(moments), .footprint = footprint_of(moments), .parameters = {}, .enqueue = std::move(enqueue)};
}

}  // namespace root_optimizer
