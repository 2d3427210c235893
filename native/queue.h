#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "batch.h"

namespace root_optimizer {

struct ProductPlan;

/// The verbs of the step. They enqueue work on a device in order: none of them waits, and no scalar travels to the
/// host. The batches of a list have different shapes; a backend takes them one after another or all at once.
class Queue {
 public:
  virtual ~Queue() = default;

  /// Sets a matrix's flag to 1 if μM + G or the U made of it is not finite, and that of moments if a step would make
  /// them infinite or NaN. Writes nothing else that outlives a refused step.
  virtual void check(std::span<const Batch> batches, std::span<const Moments> moments) = 0;

  /// ε ← scale · quantile of |U|: numpy.quantile(|U|, q, method='linear') of the float32 values in float64, exactly.
  virtual void threshold(std::span<const Batch> batches) = 0;
  /// M ← μM + G if there is a gradient, ε as by `threshold` if there is one, then X ← B / (‖B‖_F + 1e-7) with
  /// B = clamp(U, −ε, ε). B is U if there is no ε, or if ε is 0 as a float32: clipping would erase the gradient.
  /// Comes after `check` of the same matrices and numbers. If the last step's ε is above 0, a backend may
  /// begin its search there. Makes `x`, an operand for each batch, in as many parts as it says.
  virtual void proximal(std::span<const Batch> batches, std::span<Operand> x) = 0;
  /// base ← clamp(U, −ε, ε) and outliers ← U − base of one matrix, such that they add up to U in float32: if U − ε
  /// needs one bit more than a float has, base gives way by that bit.
  virtual void soft_threshold(const Batch& batch, float* base, float* outliers) = 0;

  /// Uninitialised scratch. It lives until the job ends, or until `rewind` to a mark that was taken before it.
  virtual Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) = 0;
  virtual size_t mark() const = 0;
  virtual void rewind(size_t mark) = 0;
  /// a and b have one shape and precision, and the result is known to be symmetric: half of it is computed. The sums
  /// run along the long side: aᵀb if a is tall, abᵀ if it is wide. `out` may have the precision of Gram squares; γ may
  /// differ from 0 if all operands have it.
  virtual void gemm_symmetric(const Product& product) = 0;
  /// The product is ab if a is tall and ba if it is wide, where b is symmetric. c is a, and γ is 0. If a backend's
  /// arithmetic has two precisions, b may have that of Gram squares. Then b is rounded to a's precision, except the
  /// mean of its diagonal. A product that carries an update does what `update` would do with its result.
  virtual void gemm(const Product& product) = 0;
  /// Does all of a plan's products, which consume `x`, and what `update` does with their result. Returns false, and
  /// does nothing, where products one by one are as fast.
  virtual bool newton_schulz(const ProductPlan&, const Batch&, const Operand&) { return false; }
  /// out ← b·z + a·I.
  virtual void add_identity(const Operand& out, const Operand& z, float a, float b) = 0;

  /// θ ← decay·θ + rate·X, with an operand for each batch. Does nothing if decay is 1 and rate 0, because −0 + 0 is 0.
  virtual void update(std::span<const Batch> batches, std::span<const Operand> x) = 0;
  /// torch.optim.AdamW, with decoupled weight decay and bias correction.
  virtual void adamw(std::span<const Moments> moments) = 0;
};

}  // namespace root_optimizer
