#include "newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace root_optimizer {

namespace {

// The Gram form sees a singular value σ only through R, where it stands as σ² beside the rounding error of the largest
// ones, about 2⁻²⁴ in float32. Each iteration multiplies small eigenvalues of R by up to a², error and value alike, so
// a leg ends with an error of about 2⁻²⁴·∏a² beside what it should hold. That of float16, 2⁻¹¹, is spread over many
// more directions than one, and a lower limit keeps the whole within 0.5 % (docs/cuda.md); that of bfloat16, 2⁻⁸, is
// beyond help: null, no Gram form.
//
// Float32 squares beside an X in bfloat16: on what X is made of Q is near 1, but as a sum of parts up to ∏a, where X
// has few directions, and these lie along few coordinates. Rounding the parts moves it by up to 2⁻⁹·∏a, and the next
// leg would have to pull that back, which coefficients can of about 1 %: every leg but the last is one iteration.
struct GrowthLimits {
  double last;             // of ∏a² in the last leg
  bool others_are_single;  // else theirs is the same
};

std::optional<GrowthLimits> growth_limits(Arithmetic arithmetic) {
  switch (arithmetic.gram_square) {
    case Precision::float32: return GrowthLimits{0x1p11, arithmetic.precision != Precision::float32};
    case Precision::float16: return GrowthLimits{0x1p8, false};
    case Precision::bfloat16: break;
  }
  return std::nullopt;
}

// Of an operation, in relation to others.
double time_of(Precision precision) { return precision == Precision::float32 ? 1 : 0.5; }

double growth_of(const Coefficients& step) { return std::max(step.a * step.a, 1.0); }

// Legs that are each as long as the growth limit lets them be; an iteration that exceeds it alone is a leg of its own.
std::vector<int> greedy_legs(const std::vector<Coefficients>& steps, double limit) {
  std::vector<int> legs;
  double growth = 0;
  for (const Coefficients& step : steps) {
    const double gain = growth_of(step);
    if (legs.empty() || growth * gain > limit) {
      legs.push_back(0);
      growth = 1;
    }
    growth *= gain;
    ++legs.back();
  }
  return legs;
}

// As few legs as the limit allows, divided at the lowest limit that as many legs can keep.
std::vector<int> balanced_legs(const std::vector<Coefficients>& steps, double limit) {
  std::vector<int> legs = greedy_legs(steps, limit);
  double too_low = 0;
  double enough = std::log2(limit);
  while (enough - too_low > 0.01) {
    const double middle = (too_low + enough) / 2;
    std::vector<int> balanced = greedy_legs(steps, std::exp2(middle));
    if (balanced.size() > legs.size()) {
      too_low = middle;
    } else {
      enough = middle;
      legs = std::move(balanced);
    }
  }
  return legs;
}

std::vector<int> gram_legs(const std::vector<Coefficients>& steps, const GrowthLimits& limits) {
  if (!limits.others_are_single) return balanced_legs(steps, limits.last);
  int last = 1;
  for (double growth = growth_of(steps.back()); last < int(steps.size()); ++last) {
    growth *= growth_of(steps[steps.size() - 1 - size_t(last)]);
    if (growth > limits.last) break;
  }
  std::vector<int> legs(steps.size() - size_t(last), 1);
  legs.push_back(last);
  return legs;
}

// Whether rounding upwards by 1e-5 in every iteration, a hundred times what float32 does, leaves all singular values
// where the next ones pull them back. Coefficients of which that is not true (ROOT's for 2048 × 2048) diverge sooner in
// the Gram form, where R carries them squared. Between iterations sequences such as polar-express and cans reach 2.
bool stays_bounded(const std::vector<Coefficients>& steps) {
  constexpr int kPoints = 256;
  for (int i = 1; i <= kPoints; ++i) {
    double x = double(i) / kPoints;
    for (const auto& [a, b, c] : steps) x *= 1.00001 * (a + x * x * (b + c * x * x));
    if (!(std::fabs(x) < 2.5)) return false;
  }
  return true;
}

// Symmetric results cost half.
struct Flops {
  double tall;    // in the precision of matrices
  double square;  // in that of the Gram form's squares
};

Flops standard_flops(double n, double m, size_t steps) { return {double(steps) * (3 * m * m * n + m * m * m), 0}; }

Flops gram_flops(double n, double m, const std::vector<int>& legs) {
  Flops flops{};
  for (int leg : legs) {
    const Flops one = standard_flops(n, m, 1);
    flops.tall += leg == 1 ? one.tall : 3 * m * m * n;
    // No Q product in a leg's first iteration, no R products in its last.
    flops.square += leg == 1 ? one.square : (4 * leg - 3) * m * m * m;
  }
  return flops;
}

// X ← aX + X(bG + cG²) with G = XᵀX; `next` is scratch.
void iterate(Queue& queue, const Coefficients& step, Operand& x, Operand& next, const Operand& z) {
  const Operand gram = next.square(x.precision);  // last read before `next` is written
  queue.gemm_symmetric(gram, 1, x, x, 0, {});
  queue.gemm_symmetric(z, float(step.c), gram, gram, float(step.b), gram);
  queue.gemm(next, x, z, float(step.a), x);
  std::swap(x, next);
}

Operand standard_form(Queue& queue, const Batch& batch, Operand x, const std::vector<Coefficients>& steps) {
  Operand next = queue.operand(batch, x.rows, x.columns, x.precision);
  const Operand z = queue.operand(batch, x.columns, x.columns, x.precision);
  for (const Coefficients& step : steps) iterate(queue, step, x, next, z);
  return x;
}

// R and all that is made of it are polynomials of one matrix: they commute and are symmetric, so half of each product
// will do.
Operand gram_form(Queue& queue, const Batch& batch, Operand x, const Schedule& schedule) {
  Operand next = queue.operand(batch, x.rows, x.columns, x.precision);
  const Operand r = queue.operand(batch, x.columns, x.columns, schedule.square);
  Operand q = queue.operand(batch, x.columns, x.columns, schedule.square);
  Operand other = queue.operand(batch, x.columns, x.columns, schedule.square);  // RZ + aR, then the next Q
  auto step = schedule.steps.begin();
  for (const int leg : schedule.legs) {
    if (leg == 1) {
      iterate(queue, *step++, x, next, r.square(x.precision));
      continue;
    }
    const Operand z = next.square(schedule.square);  // last read before `next` is written
    queue.gemm_symmetric(r, 1, x, x, 0, {});
    for (int i = 0; i < leg; ++i, ++step) {
      const auto& [a, b, c] = *step;
      queue.gemm_symmetric(z, float(c), r, r, float(b), r);
      if (i + 1 < leg) {
        queue.gemm_symmetric(other, 1, r, z, float(a), r);
        queue.gemm_symmetric(r, 1, z, other, float(a), other);
      }
      if (i == 0) {
        queue.add_identity(q, z, float(a));
      } else {
        queue.gemm_symmetric(other, 1, q, z, float(a), q);
        std::swap(q, other);
      }
    }
    queue.gemm(next, x, q, 0, {});
    std::swap(x, next);
  }
  return x;
}

}  // namespace

static Flops flops_of(const Schedule& s, int64_t tall, int64_t narrow) {
  return s.gram() ? gram_flops(double(tall), double(narrow), s.legs)
                  : standard_flops(double(tall), double(narrow), s.steps.size());
}

double Schedule::flops(int64_t tall, int64_t narrow) const {
  const Flops flops = flops_of(*this, tall, narrow);
  return flops.tall + flops.square;
}

double Schedule::square_flops(int64_t narrow) const { return flops_of(*this, narrow, narrow).square; }

Footprint Schedule::footprint(int64_t tall, int64_t narrow) const { return {tall, narrow, 2, gram() ? 3 : 1, false}; }

Schedule plan_newton_schulz(int64_t tall, int64_t narrow, std::vector<Coefficients> steps, Arithmetic arithmetic) {
  Schedule schedule{{}, std::move(steps), arithmetic.precision};
  const std::optional<GrowthLimits> limits = growth_limits(arithmetic);
  if (!limits) return schedule;
  std::vector<int> legs = gram_legs(schedule.steps, *limits);
  const double time = time_of(arithmetic.precision);
  const Flops standard = standard_flops(double(tall), double(narrow), schedule.steps.size());
  const Flops gram = gram_flops(double(tall), double(narrow), legs);
  if (time * gram.tall + time_of(arithmetic.gram_square) * gram.square < time * (standard.tall + standard.square) &&
      stays_bounded(schedule.steps)) {
    schedule.legs = std::move(legs);
    schedule.square = arithmetic.gram_square;
  }
  return schedule;
}

Operand newton_schulz(Queue& queue, const Batch& batch, Operand x, const Schedule& schedule) {
  return schedule.gram() ? gram_form(queue, batch, x, schedule) : standard_form(queue, batch, x, schedule.steps);
}

}  // namespace root_optimizer
