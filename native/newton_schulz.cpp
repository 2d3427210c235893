#include "newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

namespace root_optimizer {

namespace {

using Iterations = std::span<const Coefficients>;

// One iteration is X ← aX + X(bG + cG²) with G = XᵀX (XXᵀ where X is wide). Iterations come in legs. A leg takes the
// Gram matrix of X, works on squares alone, and makes the next X:
//
//   1  R ← XᵀX
//   2  each iteration:  Z ← bR + cR²
//   3                   P ← Z and p ← a at first, then P ← PZ + aP + pZ and p ← ap
//   4                   S ← aR + RZ and R ← aS + ZS, except at the end of the leg
//   5  X ← pX + XP
//
// The standard form has legs of one iteration, the Gram form has longer ones. P, R, S and Z are polynomials of one
// matrix. They commute and are symmetric, so half of each product will do. Where c is 0, Z is bR and needs no product
// of its own.
//
// X in two parts is H + L: products multiply H, and L is what rounding took away. pX has both. Where X has one part, a
// leg of several iterations begins with P ← aI + Z and p ← 0, so that XP alone makes the next X. That is more precise:
// P is smaller by p, and so is what its rounding does.

// A symmetric matrix times a number.
struct Scaled {
  Operand matrix;
  float factor = 1;
};

// What a leg does to X: X ← pX + XP.
struct Leg {
  Scaled matrix;  // P
  double p = 0;
};

// Where squares lie. The room of the next X serves too, but not for P, which is read while the next X is written.
struct Squares {
  Operand room;
  Operand p, s;  // for legs of several iterations
};

// Z of an iteration whose R is `gram`. `room` is where a product is put.
Scaled make_z(Queue& queue, const Coefficients& k, const Operand& gram, const Operand& room) {
  if (k.c == 0) return {.matrix = gram, .factor = float(k.b)};
  queue.gemm_symmetric({.out = room, .a = gram, .b = gram, .c = gram, .alpha = float(k.c), .beta = float(k.b)});
  return {.matrix = room};
}

Leg leg_of_one(Queue& queue, const Coefficients& k, const Operand& x, const Operand& next, const Squares& squares) {
  Operand z = squares.room;
  z.precision = x.precision;
  Operand gram = z;
  if (k.c != 0) gram.storage = next.storage;
  queue.gemm_symmetric({.out = gram, .a = x, .b = x});
  return {.matrix = make_z(queue, k, gram, z), .p = k.a};
}

Leg leg_of_several(Queue& queue, Iterations iterations, const Operand& x, const Operand& next, const Squares& squares) {
  auto [r, p, s] = squares;
  Operand free = r;
  free.storage = next.storage;
  double factor_of_x = 0;
  queue.gemm_symmetric({.out = r, .a = x, .b = x});
  for (const Coefficients& k : iterations) {
    const float a = float(k.a);
    const bool first = &k == &iterations.front();
    const bool z_is_p = first && x.two_parts && k.c != 0;
    const auto [z, factor] = make_z(queue, k, r, z_is_p ? p : free);
    if (first) {
      if (!z_is_p) queue.add_identity(p, z, x.two_parts ? 0 : a, factor);
      factor_of_x = x.two_parts ? k.a : 0;
    } else {
      queue.gemm_symmetric(
          {.out = s, .a = p, .b = z, .c = p, .d = z, .alpha = factor, .beta = a, .gamma = float(factor_of_x * factor)});
      std::swap(p, s);
      factor_of_x *= k.a;
    }
    if (&k == &iterations.back()) break;
    queue.gemm_symmetric({.out = s, .a = r, .b = z, .c = r, .alpha = factor, .beta = a});
    const Operand& out = k.c == 0 ? free : r;  // where Z is R itself, the new R must not take its place
    queue.gemm_symmetric({.out = out, .a = z, .b = s, .c = s, .alpha = factor, .beta = a});
    if (k.c == 0) std::swap(r, free);
  }
  return {.matrix = {.matrix = p}, .p = factor_of_x};
}

// Floating-point operations. Symmetric results cost half.
struct Flops {
  double matrix = 0;       // in the precision of matrices
  double gram_square = 0;  // in that of the squares of longer legs

  double total() const { return matrix + gram_square; }
};

double products_of_z(Iterations iterations) {
  return double(std::count_if(iterations.begin(), iterations.end(), [](const Coefficients& k) { return k.c != 0; }));
}

Flops flops_of(const ProductPlan& plan, int64_t rows, int64_t columns) {
  const double n = double(std::max(rows, columns));
  const double m = double(std::min(rows, columns));
  Iterations left = plan.iterations;
  Flops flops;
  for (const int leg : plan.legs) {
    // Besides Z, a leg has no product for P in its first iteration and none for R in its last.
    const double squares = (3 * (leg - 1) + products_of_z(left.first(size_t(leg)))) * m * m * m;
    flops.matrix += 3 * m * m * n;
    (leg == 1 ? flops.matrix : flops.gram_square) += squares;
    left = left.subspan(size_t(leg));
  }
  return flops;
}

// How far the rounding of an arithmetic lets singular values grow. The growth of iterations is log₂ of ∏a², where a
// factor a below 1 counts as 1: they multiply a small singular value, and the error in it, by up to ∏a. The limits are
// measured: by scripts/accuracy.ts, and for many more spectra and coefficients in a model of the roundings
// (docs/notes/2026-11-26-compensated.md).
struct Limits {
  double leg;              // the growth of a leg. R holds small singular values as σ², beside errors of large ones
  bool only_last = false;  // whether legs before the last have one iteration each
  // Whether legs are as long as possible from the first on, else as even as possible. The growth of such a leg counts
  // from the largest singular value that it begins with: polar-express takes some to 2 in its first iteration.
  bool longest_first = false;
  double one_part;  // X has one part where the growth from there to the end is no more than this
};

constexpr double kNoLeg = -1;

Limits limits_of(Arithmetic arithmetic) {
  switch (arithmetic.matrix) {
    case Precision::float32: return {.leg = 11, .one_part = HUGE_VAL};
    case Precision::float16:
      // The roundings of X hurt only until the rest of the growth is small. After the first leg, of two iterations,
      // it is; from there on legs without a second part are the more precise ones.
      if (arithmetic.compensated) return {.leg = 8.5, .longest_first = true, .one_part = 11.5};
      return {.leg = 11.5, .one_part = HUGE_VAL};
    case Precision::bfloat16:
      // P is rounded to bfloat16 before X ← XP. It holds values up to ∏a. If X has few directions and they lie along
      // few coordinates, a value near 1 on X is a sum of such values, and rounding moves it by up to 2⁻⁹·∏a. A later
      // leg would have to pull that back, but coefficients can pull back only about 1 %.
      return {
          .leg = arithmetic.gram_square == Precision::bfloat16 ? kNoLeg : 11, .only_last = true, .one_part = HUGE_VAL};
    case Precision::bfloat16x3:
      // In the Gram form the error on matrices of rank m/4 is five times as large (1.4e-3 after legs of 2 and 3), and X
      // has no rest there that could mend it.
      return {.leg = kNoLeg, .one_part = HUGE_VAL};
  }
  return {};
}

double growth_of(const Coefficients& iteration) { return 2 * std::log2(std::max(iteration.a, 1.0)); }

// Legs as long as the limit allows, from the first iteration on. An iteration that exceeds the limit is a leg by
// itself. `begins` has the growth that a leg begins with which starts at an iteration.
std::vector<int> longest_legs(Iterations iterations, double limit, const std::vector<double>& begins) {
  std::vector<int> legs;
  double growth = 0;
  for (size_t i = 0; i < iterations.size(); ++i) {
    growth += growth_of(iterations[i]);
    if (legs.empty() || growth > limit) {
      legs.push_back(0);
      growth = begins[i] + growth_of(iterations[i]);
    }
    ++legs.back();
  }
  return legs;
}

// Calls body(x, i) for values x in [0, 1] and what iterations make of them; i counts the iterations so far.
template <typename Body>
void follow_values(Iterations iterations, Body body) {
  constexpr int kPoints = 256;
  for (int point = 1; point <= kPoints; ++point) {
    double x = double(point) / kPoints;
    for (size_t i = 0; i < iterations.size(); ++i) {
      const auto& [a, b, c] = iterations[i];
      // Every iteration rounds upwards by 1e-5, a hundred times what float32 does.
      x *= 1.00001 * (a + x * x * (b + c * x * x));
      body(std::fabs(x), i + 1);
    }
  }
}

// Before each iteration log₂ of the largest singular value's square; 0 if no value exceeds 1.
std::vector<double> growth_before(Iterations iterations) {
  std::vector<double> growth(iterations.size() + 1, 0);
  follow_values(iterations, [&](double x, size_t i) { growth[i] = std::max(growth[i], 2 * std::log2(x)); });
  return growth;
}

// As few legs as the limit allows, divided by the lowest limit that gives the same number. The later legs are the
// longer ones, because X has less far to grow.
std::vector<int> even_legs(Iterations iterations, double limit) {
  const std::vector<Coefficients> reversed(iterations.rbegin(), iterations.rend());
  const std::vector<double> begins(iterations.size(), 0);
  std::vector<int> legs = longest_legs(reversed, limit, begins);
  double too_low = 0;
  double enough = limit;
  while (enough - too_low > 0.01) {
    const double middle = (too_low + enough) / 2;
    std::vector<int> other = longest_legs(reversed, middle, begins);
    if (other.size() > legs.size()) {
      too_low = middle;
    } else {
      enough = middle;
      legs = std::move(other);
    }
  }
  std::reverse(legs.begin(), legs.end());
  return legs;
}

std::vector<int> gram_legs(Iterations iterations, const Limits& limits) {
  if (limits.longest_first) return longest_legs(iterations, limits.leg, growth_before(iterations));
  if (!limits.only_last) return even_legs(iterations, limits.leg);
  const std::vector<Coefficients> reversed(iterations.rbegin(), iterations.rend());
  const int last = longest_legs(reversed, limits.leg, std::vector<double>(iterations.size(), 0)).front();
  std::vector<int> legs(iterations.size() - size_t(last), 1);
  legs.push_back(last);
  return legs;
}

// The legs whose X needs two parts. They come first, because the growth that is left becomes less.
int split_legs(const ProductPlan& plan, const Limits& limits) {
  double left = 0;
  for (const Coefficients& iteration : plan.iterations) left += growth_of(iteration);
  int split = 0;
  auto iteration = plan.iterations.begin();
  for (const int leg : plan.legs) {
    if (left <= limits.one_part) break;
    ++split;
    for (int i = 0; i < leg; ++i) left -= growth_of(*iteration++);
  }
  return split;
}

// Whether singular values stay where later iterations pull them back, although every iteration rounds them upwards.
// ROOT's coefficients for 2048 × 2048 fail this test. They diverge sooner in the Gram form, where R carries the values
// squared. Between iterations polar-express and cans reach 2.
bool stays_bounded(const std::vector<Coefficients>& iterations) {
  bool bounded = true;
  follow_values(iterations, [&](double x, size_t) { bounded = bounded && x < 2.5; });
  return bounded;
}

// Whether singular values stay where later iterations pull them back, although products round their operands to
// bfloat16 and aX does not. Then z = bσ² + cσ⁴ is off by two roundings, of X and of Z, and by three of σ² in G; where a
// rounded X enters aX as well, the largest part of that cancels.
bool stays_bounded_beside_rest(const std::vector<Coefficients>& iterations) {
  constexpr int kPoints = 512;
  constexpr double kRounding = 1.0 / 512;
  double most = 1;
  for (const auto& [a, b, c] : iterations) {
    double next = 0;
    for (int point = 1; point <= kPoints; ++point) {
      const double x = most * point / kPoints;
      const double g = x * x;
      const double z = g * (b + c * g);
      const double off = kRounding * (2 * std::fabs(z) + 3 * std::fabs(g * (b + 2 * c * g)));
      next = std::max(next, x * (std::fabs(a + z) + off));
    }
    most = next;
    if (!(most < 2.5)) return false;
  }
  return true;
}

// Adaptive coefficients leave little room above the largest value that they expect, and beyond it they diverge. So all
// iterations but the last do with a value what they would do with one that is up to 4 % larger.
std::vector<Coefficients> with_room(const std::vector<Coefficients>& iterations) {
  std::vector<Coefficients> changed;
  for (int times = 0; times <= 16; ++times) {
    const double larger = 1 + times / 400.0;
    changed = iterations;
    for (size_t i = 0; i + 1 < changed.size(); ++i) {
      auto& [a, b, c] = changed[i];
      a /= larger;
      b /= std::pow(larger, 3);
      c /= std::pow(larger, 5);
    }
    if (stays_bounded_beside_rest(changed)) break;
  }
  return changed;
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
          .two_part_operands = std::min(split_legs, 2),
          .square_operands = is_gram() ? 3 : 1};
}

ProductPlan plan_products(int64_t rows, int64_t columns, std::vector<Coefficients> iterations, Arithmetic arithmetic) {
  const Limits limits = limits_of(arithmetic);
  if (arithmetic.keeps_rest && arithmetic.matrix == Precision::bfloat16) iterations = with_room(iterations);
  const std::vector<int> single(iterations.size(), 1);
  ProductPlan standard{.iterations = std::move(iterations), .legs = single, .square = arithmetic.gram_square};
  ProductPlan gram = standard;
  gram.legs = gram_legs(gram.iterations, limits);
  const auto time = [&](const ProductPlan& plan) {
    const Flops flops = flops_of(plan, rows, columns);
    return time_of(arithmetic.matrix) * flops.matrix + time_of(arithmetic.gram_square) * flops.gram_square;
  };
  ProductPlan& cheaper = time(gram) < time(standard) && stays_bounded(gram.iterations) ? gram : standard;
  cheaper.split_legs = split_legs(cheaper, limits);
  return std::move(cheaper);
}

void newton_schulz(Queue& queue, const ProductPlan& plan, const Batch& batch, Operand x) {
  if (queue.newton_schulz(plan, batch, x)) return;
  const size_t mark = queue.mark();
  Operand next = queue.operand(x.rows, x.columns, x.count, x.precision, plan.split_legs > 1);
  const auto square = [&] { return queue.operand(x.short_side(), x.short_side(), x.count, plan.square, false); };
  Squares squares{.room = square(), .p = {}, .s = {}};
  if (plan.is_gram()) {
    squares.p = square();
    squares.s = square();
  }
  Iterations left = plan.iterations;
  for (size_t i = 0; i < plan.legs.size(); ++i) {
    const Iterations iterations = left.first(size_t(plan.legs[i]));
    left = left.subspan(iterations.size());
    const Leg leg = iterations.size() == 1 ? leg_of_one(queue, iterations[0], x, next, squares)
                                           : leg_of_several(queue, iterations, x, next, squares);
    next.two_parts = int(i) + 1 < plan.split_legs;
    queue.gemm({.out = next,
                .a = x,
                .b = leg.matrix.matrix,
                .c = x,
                .alpha = leg.matrix.factor,
                .beta = float(leg.p),
                .update = left.empty() ? &batch : nullptr});
    std::swap(x, next);
  }
  queue.rewind(mark);
}

}  // namespace root_optimizer
