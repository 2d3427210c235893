#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace root_optimizer {

/// The precision of the operands of a product. Its sums are float32 in any case. An operand of `bfloat16x3` is the sum
/// of two bfloat16, high and low, and a product is the sum of three: both high ones, and each high one with the other's
/// low one.
enum class Precision { float16, bfloat16, bfloat16x3, float32 };

/// How a backend keeps operands.
struct Arithmetic {
  Precision matrix;          ///< the precision of X, and of the squares of a leg of one iteration
  Precision gram_square;     ///< the precision of the squares of longer legs
  bool compensated = false;  ///< whether X has two parts where one would let rounding errors grow too far; if false,
                             ///< no operand has two, and no product has a γ
  bool keeps_rest = false;   ///< whether an X that is a product's c has what its rounding took away, which products of
                             ///< a and b leave out; `two_parts` of an operand does not tell

  bool operator==(const Arithmetic&) const = default;
};

/// How a step clips a gradient before it accumulates it.
struct GradientScalars {
  double quantile = 0;  ///< ε_G = scale · the quantile of |G|
  double scale = 0;
  double growth = 0;  ///< f = min(1, growth · e / ε_G); infinite: f is 1
};

/// The numbers of a step for one matrix.
struct MatrixScalars {
  double quantile = 0;  ///< ε = scale · the quantile of |U|
  double scale = 0;
  GradientScalars gradient = {};
  float mu = 0;           ///< μ
  float beta2 = 0;        ///< β₂ of v
  float decay = 1;        ///< 1 − lr·λ; 0: θ is not read, unless `cautious`
  float rate = 0;         ///< −lr·s
  bool cautious = false;  ///< whether only elements decay whose θ and X have one sign
};

/// The thresholds of a matrix or, for AdamW, of a parameter. A 0 stands for one that no step has found.
struct Thresholds {
  double threshold = 0;           ///< ε of the last step
  double gradient_threshold = 0;  ///< ε_G of the last step
  double gradient_scale = 0;      ///< e, a running mean of the ε_G of past steps
};

/// One matrix of a batch: row-major arrays in the backend's memory. The numbers of a step lie there too, so that work
/// which has been prepared once can be run again with other numbers.
struct Matrix {
  float* data = nullptr;                   ///< θ, written by an update; null if none follows the check
  const float* gradient = nullptr;         ///< G; null: U is M, and M stays as it is
  float* momentum = nullptr;               ///< M
  float* row_second_moment = nullptr;      ///< v, one for each row; null if the batch is not normalized
  Thresholds* thresholds = nullptr;        ///< null if the batch clips nothing
  const MatrixScalars* scalars = nullptr;  ///< null if no verb needs any
  uint32_t* flag = nullptr;                ///< raised by `check`
  uint32_t index = 0;                      ///< its number in the plan, under which a backend keeps a check's results
};

/// Matrices of one shape that go through every verb alike. With `clips_gradient` G stands for f·clamp(G, −ε_G, ε_G)
/// everywhere but in its own check. U = G + μM with `nesterov`, else U = M, where M is the momentum that the step has
/// updated. U is never stored: each pass forms it anew by formulas.h, so that every backend sees the same bits.
struct Batch {
  int64_t rows = 0;
  int64_t columns = 0;
  bool nesterov = false;
  bool clips = false;           ///< whether U is clipped at ε
  bool clips_gradient = false;  ///< whether G is clipped at ε_G
  bool normalized = false;      ///< whether X is divided by the root of v, row by row
  bool in_out = false;          ///< whether a row, for v, is a column of the array
  std::vector<Matrix> matrices;

  int64_t size() const { return rows * columns; }
  int64_t count() const { return int64_t(matrices.size()); }
};

struct AdamWScalars {
  GradientScalars gradient = {};
  float beta1_complement = 0;  ///< 1 − β₁
  float beta2 = 0;
  float beta2_complement = 0;  ///< 1 − β₂
  float decay = 1;             ///< 1 − lr·λ
  float step_size = 0;         ///< lr / (1 − β₁ᵗ)
  float correction2_root = 1;  ///< √(1 − β₂ᵗ)
  float eps = 0;
  bool cautious = false;  ///< whether only elements decay whose θ and direction have one sign
};

/// A parameter that AdamW updates: arrays of `size` elements in the backend's memory.
struct Moments {
  int64_t size = 0;
  float* data = nullptr;
  const float* gradient = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  Thresholds* thresholds = nullptr;  ///< null: G is taken as it is, else clipped like that of a matrix
  const AdamWScalars* scalars = nullptr;
  uint32_t* flag = nullptr;  ///< raised by `check`
  uint32_t index = 0;        ///< its number in the plan, after all matrices
};

/// Matrices inside the Newton-Schulz iteration, one for each of a batch. The backend decides how they lie in `storage`.
struct Operand {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t count = 0;
  Precision precision = Precision::float32;
  bool two_parts = false;  ///< whether an element is a sum of two: its rounded value, and what the rounding took away
  void* storage = nullptr;

  bool is_wide() const { return rows < columns; }
  int64_t long_side() const { return is_wide() ? columns : rows; }
  int64_t short_side() const { return is_wide() ? rows : columns; }
};

/// out ← α·(a by b) + β·c + γ·d. Each verb of queue.h says what "by" means. Only the first parts of a and b are
/// multiplied; both parts of c are added, and the result is rounded to both parts of `out`.
struct Product {
  Operand out, a, b;
  Operand c = {};  ///< not read if β is 0
  Operand d = {};  ///< not read if γ is 0; of one part
  float alpha = 1;
  float beta = 0;
  float gamma = 0;
  const Batch* update = nullptr;  ///< if not null, `out` is this batch's update direction and nothing else
};

/// The most scratch memory that the check and the update of a batch need, in operands, or those of a parameter of
/// AdamW, which has none. X is an operand that all batches of a job have at once, the others are needed batch by batch.
struct Footprint {
  int64_t long_side = 0;
  int64_t short_side = 0;
  int64_t count = 1;
  int matrix_operands = 0;
  int two_part_operands = 0;  ///< those of the matrix operands that have two parts
  int square_operands = 0;
  bool selects = false;     ///< whether it finds thresholds
  bool near_last = false;   ///< whether it may look for them near the last ones, which takes room for candidates
  bool normalizes = false;  ///< whether it normalizes rows
};

}  // namespace root_optimizer
