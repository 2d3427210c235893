#include "newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

namespace root_optimizer {

namespace {

// One iteration is X ← aX + X(bG + cG²) with G = XᵀX (XXᵀ where X is wide), one product a line:
//
//   standard form, each iteration    Gram form, each leg
//   1  G ← XᵀX                       1  R ← XᵀX
//   2  Z ← bG + cG²                  2  each iteration:  Z ← bR + cR²
//   3  X ← aX + XZ                   3    Q ← aI + Z at first, then Q ← aQ + QZ
//                                    4    S ← aR + RZ and R ← aS + ZS, except at the end of a leg
//                                    5  X ← XQ
//
// Q, R, S and Z are polynomials of one matrix. They commute and are symmetric, so half of each product will do. Where
// c is 0, Z is bG or bR and needs no product of its own.

// A symmetric matrix times a number.
struct Scaled {
  Operand matrix;
  float factor = 1;
};

// Z of an iteration whose G or R is `gram`. `room` is where a product is put.
Scaled make_z(Queue& queue, const Coefficients& k, const Operand& gram, const Operand& room) {
  if (k.c == 0) return {.matrix = gram, .factor = float(k.b)};
  queue.gemm_symmetric({.out = room, .a = gram, .b = gram, .c = gram, .alpha = float(k.c), .beta = float(k.b)});
  return {.matrix = room};
}

// `next` and `z` are scratch.
void iterate(Queue& queue, const Coefficients& k, Operand& x, Operand& next, const Operand& z, const Batch* update) {
  Operand gram = z;
  if (k.c != 0) gram.storage = next.storage;  // its last read comes before `next` is written
  queue.gemm_symmetric({.out = gram, .a = x, .b = x});
  const Scaled right = make_z(queue, k, gram, z);
  queue.gemm(
      {.out = next, .a = x, .b = right.matrix, .c = x, .alpha = right.factor, .beta = float(k.a), .update = update});
  std::swap(x, next);
}

Operand square(Queue& queue, const Operand& x, Precision precision) {
  return queue.operand(x.short_side(), x.short_side(), x.count, precision);
}

void standard_form(Queue& queue, const ProductPlan& plan, const Batch& batch, Operand x) {
  Operand next = queue.operand(x.rows, x.columns, x.count, x.precision);
  const Operand z = square(queue, x, x.precision);
  const Coefficients& last = plan.iterations.back();
  for (const Coefficients& k : plan.iterations) iterate(queue, k, x, next, z, &k == &last ? &batch : nullptr);
}

void gram_form(Queue& queue, const ProductPlan& plan, const Batch& batch, Operand x) {
  Operand next = queue.operand(x.rows, x.columns, x.count, x.precision);
  const Operand room = square(queue, x, plan.square);
  Operand q = square(queue, x, plan.square);
  Operand s = square(queue, x, plan.square);
  Operand standard_z = room;  // squares of the standard form have the matrices' precision
  standard_z.precision = x.precision;

  auto k = plan.iterations.begin();
  for (const int leg : plan.legs) {
    const auto end = k + leg;
    const Batch* const update = end == plan.iterations.end() ? &batch : nullptr;
    if (leg == 1) {
      iterate(queue, *k++, x, next, standard_z, update);
      continue;
    }
    Operand r = room;
    Operand free = r;
    free.storage = next.storage;  // its last read comes before `next` is written
    queue.gemm_symmetric({.out = r, .a = x, .b = x});
    for (bool first = true; k != end; first = false, ++k) {
      const float a = float(k->a);
      const auto [z, factor] = make_z(queue, *k, r, free);
      if (first) {
        queue.add_identity(q, z, a, factor);
      } else {
        queue.gemm_symmetric({.out = s, .a = q, .b = z, .c = q, .alpha = factor, .beta = a});
        std::swap(q, s);
      }
      if (k + 1 == end) continue;
      queue.gemm_symmetric({.out = s, .a = r, .b = z, .c = r, .alpha = factor, .beta = a});
      const Operand& out = k->c == 0 ? free : r;  // where Z is R itself, the new R must not take its place
      queue.gemm_symmetric({.out = out, .a = z, .b = s, .c = s, .alpha = factor, .beta = a});
      if (k->c == 0) std::swap(r, free);
    }
    queue.gemm({.out = next, .a = x, .b = q, .update = update});
    std::swap(x, next);
  }
}

// The floating-point operations of both forms for n × m, n ≥ m. Symmetric results cost half.
struct Flops {
  double matrix = 0;       // in the precision of matrices
  double gram_square = 0;  // in that of the Gram form's squares

  double total() const { return matrix + gram_square; }
};

using Iterations = std::span<const Coefficients>;

double products_of_z(Iterations iterations) {
  return double(std::count_if(iterations.begin(), iterations.end(), [](const Coefficients& k) { return k.c != 0; }));
}

Flops standard_flops(double n, double m, Iterations iterations) {
  return {.matrix = 3 * m * m * n * double(iterations.size()) + m * m * m * products_of_z(iterations)};
}

Flops gram_flops(double n, double m, Iterations iterations, const std::vector<int>& legs) {
  Flops flops;
  size_t done = 0;
  for (const int leg : legs) {
    const Iterations of_leg = iterations.subspan(done, size_t(leg));
    done += size_t(leg);
    flops.matrix += leg == 1 ? standard_flops(n, m, of_leg).matrix : 3 * m * m * n;
    // Besides Z, a leg has no Q product in its first iteration and no R products in its last.
    if (leg > 1) flops.gram_square += (3 * (leg - 1) + products_of_z(of_leg)) * m * m * m;
  }
  return flops;
}

Flops flops_of(const ProductPlan& plan, int64_t rows, int64_t columns) {
  const double n = double(std::max(rows, columns));
  const double m = double(std::min(rows, columns));
  return plan.is_gram() ? gram_flops(n, m, plan.iterations, plan.legs) : standard_flops(n, m, plan.iterations);
}

// The Gram form sees a singular value σ only through R, as σ². R also holds the rounding error of the largest values,
// about 2⁻²⁴ in float32. An iteration multiplies a small eigenvalue and its error by up to a². So a leg ends with an
// error of about 2⁻²⁴·∏a², and ∏a² must stay below a limit.
struct GrowthLimit {
  double last = 0;                 // the limit of ∏a² in the last leg
  bool others_are_single = false;  // the other legs have one iteration each; else the limit is theirs too
};

std::optional<GrowthLimit> growth_limit(Arithmetic arithmetic) {
  switch (arithmetic.gram_square) {
    case Precision::float32:
      // If X is bfloat16, Q is rounded to bfloat16 before X ← XQ. Q holds values up to ∏a. If X has few directions and
      // they lie along few coordinates, a value near 1 on X is a sum of such values, and rounding moves it by up to
      // 2⁻⁹·∏a. A later leg would have to pull that back, but coefficients can pull back only about 1 %.
      return GrowthLimit{.last = 0x1p11, .others_are_single = arithmetic.matrix != Precision::float32};
    case Precision::float16:
      return GrowthLimit{.last = 0x1p8};  // the error of float16, 2⁻¹¹, spreads over many directions (docs/cuda.md)
    case Precision::bfloat16: break;      // an error of 2⁻⁸ leaves no room for a leg
  }
  return std::nullopt;
}

double growth_of(const Coefficients& iteration) { return std::max(iteration.a * iteration.a, 1.0); }

// Legs as long as the limit allows. An iteration that exceeds the limit alone is a leg of its own.
std::vector<int> greedy_legs(const std::vector<Coefficients>& iterations, double limit) {
  std::vector<int> legs;
  double growth = 0;
  for (const Coefficients& iteration : iterations) {
    const double factor = growth_of(iteration);
    if (legs.empty() || growth * factor > limit) {
      legs.push_back(0);
      growth = 1;
    }
    growth *= factor;
    ++legs.back();
  }
  return legs;
}

// As few legs as the limit allows. They are divided by the lowest limit that gives the same number.
std::vector<int> balanced_legs(const std::vector<Coefficients>& iterations, double limit) {
  std::vector<int> legs = greedy_legs(iterations, limit);
  double too_low = 0;
  double enough = std::log2(limit);
  while (enough - too_low > 0.01) {
    const double middle = (too_low + enough) / 2;
    std::vector<int> balanced = greedy_legs(iterations, std::exp2(middle));
    if (balanced.size() > legs.size()) {
      too_low = middle;
    } else {
      enough = middle;
      legs = std::move(balanced);
    }
  }
  return legs;
}

std::vector<int> gram_legs(const std::vector<Coefficients>& iterations, const GrowthLimit& limit) {
  if (!limit.others_are_single) return balanced_legs(iterations, limit.last);
  size_t last = 0;  // iterations of the last leg: as many as the limit allows, one at least
  double growth = 1;
  for (auto iteration = iterations.rbegin(); iteration != iterations.rend(); ++iteration) {
    growth *= growth_of(*iteration);
    if (last > 0 && growth > limit.last) break;
    ++last;
  }
  std::vector<int> legs(iterations.size() - last, 1);
  legs.push_back(int(last));
  return legs;
}

// Whether singular values stay where later iterations pull them back, although every iteration rounds them up by 1e-5,
// a hundred times what float32 does. ROOT's coefficients for 2048 × 2048 fail this test. They diverge sooner in the
// Gram form, where R carries the values squared. Between iterations polar-express and cans reach 2.
bool stays_bounded(const std::vector<Coefficients>& iterations) {
  constexpr int kPoints = 256;
  for (int i = 1; i <= kPoints; ++i) {
    double x = double(i) / kPoints;
    for (const auto& [a, b, c] : iterations) x *= 1.00001 * (a + x * x * (b + c * x * x));
    if (!(std::fabs(x) < 2.5)) return false;
  }
  return true;
}

// The time of a floating-point operation, relative to one in float32.
double time_of(Precision precision) { return precision == Precision::float32 ? 1 : 0.5; }

}  // namespace

double ProductPlan::flops(int64_t rows, int64_t columns) const { return flops_of(*this, rows, columns).total(); }

double ProductPlan::gram_square_flops(int64_t rows, int64_t columns) const {
  return flops_of(*this, rows, columns).gram_square;
}

Footprint ProductPlan::footprint(int64_t rows, int64_t columns, int64_t count) const {
  return {.long_side = std::max(rows, columns),
          .short_side = std::min(rows, columns),
          .count = count,
          .matrix_operands = 2,
          .square_operands = is_gram() ? 3 : 1};
}

ProductPlan plan_products(int64_t rows, int64_t columns, std::vector<Coefficients> iterations, Arithmetic arithmetic) {
  ProductPlan standard{.iterations = std::move(iterations), .legs = {}, .square = arithmetic.matrix};
  const std::optional<GrowthLimit> limit = growth_limit(arithmetic);
  if (!limit) return standard;
  ProductPlan gram = standard;
  gram.legs = gram_legs(gram.iterations, *limit);
  gram.square = arithmetic.gram_square;
  const auto time = [&](const ProductPlan& plan) {
    const Flops flops = flops_of(plan, rows, columns);
    return time_of(arithmetic.matrix) * flops.matrix + time_of(arithmetic.gram_square) * flops.gram_square;
  };
  return time(gram) < time(standard) && stays_bounded(gram.iterations) ? gram : standard;
}

void newton_schulz(Queue& queue, const ProductPlan& plan, const Batch& batch, Operand x) {
  plan.is_gram() ? gram_form(queue, plan, batch, x) : standard_form(queue, plan, batch, x);
}

}  // namespace root_optimizer
