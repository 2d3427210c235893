#pragma once

#include <cstdint>
#include <span>

#include "batch.h"

namespace root_optimizer {

/// The verbs of the step, as an order of work on a device. Verbs enqueue: none of them waits, and no scalar travels to
/// the host. Batches of a list have different shapes; a backend takes them one after another or all at once.
class Queue {
 public:
  virtual ~Queue() = default;

  /// A matrix's flag ← 1 where μM + G or the U made of it is not finite. Writes nothing else that outlives a refused
  /// step.
  virtual void check_matrices(std::span<const Batch> batches) = 0;
  /// The same for moments that a step would make infinite or NaN.
  virtual void check_moments(std::span<const Moments> moments) = 0;

  /// ε ← scale · quantile of |U|: numpy.quantile(|U|, q, method='linear') of the float32 values in float64, exactly.
  virtual void threshold(std::span<const Batch> batches) = 0;
  /// M ← μM + G, where there is a gradient; ε as by `threshold`, where there is one; then X ← B / (‖B‖_F + 1e-7) with
  /// B = clamp(U, −ε, ε). B is U where there is no ε, or where ε is 0 as a float32: clipping would erase the gradient.
  /// Comes after `check_matrices` of the same matrices and numbers. The ε of the last step, where it is above 0, may be
  /// taken for a place to look first. Makes `x`, an operand for each batch.
  virtual void proximal(std::span<const Batch> batches, std::span<Operand> x) = 0;
  /// base ← clamp(U, −ε, ε) and outliers ← U − base of one matrix, such that they add up to U in float32: where U − ε
  /// needs one bit more than a float has, base gives way by that bit.
  virtual void soft_threshold(const Batch& batch, float* base, float* outliers) = 0;

  /// Uninitialised scratch that lives until the job ends.
  virtual Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision) = 0;
  /// a and b have one shape and precision, and the result is known to be symmetric: half of it is computed. The sums
  /// run along the long side: aᵀb where a is tall, abᵀ where it is wide. `out` may have the precision of Gram squares.
  virtual void gemm_symmetric(const Product& product) = 0;
  /// b is symmetric: ab where a is tall, ba where it is wide. Where a backend's arithmetic has two precisions, b may
  /// have that of Gram squares. It is then rounded to a's, save the mean of its diagonal, and β has to be 0. A product
  /// that carries an update does what `update` would do with its result.
  virtual void gemm(const Product& product) = 0;
  /// out ← z + a·I.
  virtual void add_identity(const Operand& out, const Operand& z, float a) = 0;

  /// θ ← decay·θ + rate·X, an operand for each batch; nothing where decay is 1 and rate 0, for −0 + 0 is 0.
  virtual void update(std::span<const Batch> batches, std::span<const Operand> x) = 0;
  /// torch.optim.AdamW, decoupled weight decay and bias correction included.
  virtual void adamw(std::span<const Moments> moments) = 0;
};

}  // namespace root_optimizer
