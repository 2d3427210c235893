#pragma once

#include <vector>

#include "queue.h"

namespace root_optimizer {

/// One iteration maps every singular value x to ax + bx³ + cx⁵.
struct Coefficients {
  double a, b, c;

  bool operator==(const Coefficients&) const = default;
};

/// The products that orthogonalise a matrix, in order. Its shape, the coefficients and the arithmetic decide them.
struct ProductPlan {
  std::vector<Coefficients> iterations;
  std::vector<int> legs;                  ///< the iterations between one product that makes X and the next
  int split_legs = 0;                     ///< for so many legs, from the first on, X has two parts
  Precision square = Precision::float32;  ///< the precision of the squares of legs of several iterations

  /// The standard form has legs of one iteration, the Gram form has longer ones as well.
  bool is_gram() const { return legs.size() < iterations.size(); }
  /// Floating-point operations for an m × n matrix, symmetric products counted by halves.
  double flops(int64_t rows, int64_t columns) const;
  /// The part of `flops` that is done in the precision `square`.
  double gram_square_flops(int64_t rows, int64_t columns) const;
  /// The scratch for `count` matrices, without that of selecting a threshold.
  Footprint footprint(int64_t rows, int64_t columns, int64_t count) const;
};

/// Returns the cheaper of the two forms. The Gram form gets as many legs as it needs in the arithmetic.
ProductPlan plan_products(int64_t rows, int64_t columns, std::vector<Coefficients> iterations, Arithmetic arithmetic);

/// Enqueues a plan's products for the batch whose X is `x`, in two parts if the plan has split legs. They consume `x`,
/// and the last one carries the batch's update. Their scratch is free afterwards.
void newton_schulz(Queue& queue, const ProductPlan& plan, const Batch& batch, Operand x);

}  // namespace root_optimizer
