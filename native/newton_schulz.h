#pragma once

#include <vector>

#include "backend.h"

namespace root_optimizer {

/// One iteration maps every singular value x to ax + bx³ + cx⁵.
struct Coefficients {
  double a, b, c;

  bool operator==(const Coefficients& other) const { return a == other.a && b == other.b && c == other.c; }
};

/// How a matrix is orthogonalised: which products, in which order. Settled by its shape and coefficients alone.
struct Schedule {
  /// Iterations of each leg. Gram form: X ← XQ and R ← XᵀX are formed anew between legs, and a leg of one iteration is
  /// one of the standard form. Standard form: empty.
  std::vector<int> legs;
  std::vector<Coefficients> steps;
  Precision square;  ///< of the squares

  bool gram() const { return !legs.empty(); }
  double flops(int64_t tall, int64_t narrow) const;
  /// Those of them that are done in the precision of the Gram form's squares.
  double square_flops(int64_t narrow) const;
  Footprint footprint(int64_t tall, int64_t narrow) const;
};

/// The cheaper of the two forms, with as many restarts as the Gram form needs in that arithmetic.
Schedule plan_newton_schulz(int64_t tall, int64_t narrow, std::vector<Coefficients> steps, Arithmetic arithmetic);

/// Returns X after all iterations; `x` is consumed.
Operand newton_schulz(Queue& queue, const Batch& batch, Operand x, const Schedule& schedule);

}  // namespace root_optimizer
