#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace root_optimizer {

/// Of the operands of the Newton-Schulz products; sums are float32 in any case.
enum class Precision { float16, bfloat16, float32 };

/// What a backend keeps operands in.
struct Arithmetic {
  Precision precision;    ///< of matrices, and of squares in iterations of the standard form
  Precision gram_square;  ///< of R and what is made of it, in the Gram form
};

/// A parameter's data θ and gradient G.
struct Arrays {
  float* data;
  const float* gradient;
};

/// The numbers of a step for one matrix.
struct MatrixScalars {
  double quantile;  ///< ε = scale · the quantile of |U|
  double scale;
  float mu;     ///< μ
  float decay;  ///< 1 − lr·λ; 0: θ is not read
  float rate;   ///< −lr·s
};

/// What a check has found out about the step that it allows, for `proximal` to take up; only where a backend's checks
/// look at U as a whole.
struct Clip {
  double threshold;  ///< ε
  double norm;       ///< ‖B‖_F
};

/// One matrix of a batch. Every address lies in the backend's memory; arrays are row-major, rows × columns of the
/// batch. The numbers of a step lie there too, so that work which has been prepared once can be run with other ones.
struct Item {
  float* data;                   ///< θ, written by `update`
  const float* gradient;         ///< G; null: M stands for itself, as where a function is applied to an array
  float* momentum;               ///< M
  double* threshold;             ///< ε of this step; null: no clipping
  const MatrixScalars* scalars;  ///< null where no verb needs any
  uint32_t* flag;                ///< raised by `check_momentum`
  Clip* clip;                    ///< null where `proximal` is not to come
};

/// Same-shaped matrices that go through every verb together, and how their look-ahead is formed.
///
/// U = G + μM with `nesterov`, else M, of the M that a step has made. It is never stored: each pass forms it anew from
/// M and G, with one rounding after each product and one after each sum, so that every backend sees the same bits.
struct Batch {
  int64_t rows;
  int64_t columns;
  bool nesterov;
  std::vector<Item> items;

  int64_t size() const { return rows * columns; }
  bool transposed() const { return rows < columns; }
  int64_t tall() const { return rows > columns ? rows : columns; }
  int64_t narrow() const { return rows > columns ? columns : rows; }
};

struct AdamWScalars {
  float beta1_complement;  ///< 1 − β₁
  float beta2;
  float beta2_complement;  ///< 1 − β₂
  float decay;             ///< 1 − lr·λ
  float step_size;         ///< lr / (1 − β₁ᵗ)
  float correction2_root;  ///< √(1 − β₂ᵗ)
  float eps;
};

/// AdamW's share of a step, for `size` consecutive elements.
struct Moments {
  int64_t size;
  float* data;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  const AdamWScalars* scalars;
  uint32_t* flag;  ///< raised by `check_moments`
};

/// Matrices inside the Newton-Schulz iteration, one for each item of a batch, in a layout that is the backend's own
/// business. The iteration is written for tall matrices (rows ≥ columns): a wide matrix enters and leaves transposed.
struct Operand {
  int64_t rows = 0;
  int64_t columns = 0;
  void* storage = nullptr;
  Precision precision = Precision::float32;
  int64_t items = 1;
  bool transposed = false;  ///< as the batch has it, where the backend keeps that layout

  /// A square operand in this one's storage.
  Operand square(Precision kept) const { return {columns, columns, storage, kept, items, false}; }
};

/// What a job needs at most of a queue's scratch memory, in operands of its batch; `selection`: it finds thresholds.
struct Footprint {
  int64_t tall = 0;
  int64_t narrow = 0;
  int tall_operands = 0;
  int square_operands = 0;
  bool selection = false;
  int64_t items = 1;
};

/// An order of work on a device. Verbs enqueue; nothing is waited for here, and no scalar travels to the host.
class Queue {
 public:
  virtual ~Queue() = default;

  /// An item's flag ← 1 where μM + G or the look-ahead made of it is not finite; nothing else is written, save what a
  /// backend keeps in `clip`.
  virtual void check_momentum(const Batch& batch) = 0;
  /// The same where the step's moments would not be finite.
  virtual void check_moments(const std::vector<Moments>& moments) = 0;

  /// ε ← scale · quantile of |U| over each item: numpy.quantile(|U|, q, method='linear') of the float32 values in
  /// float64, exactly.
  virtual void threshold(const Batch& batch) = 0;
  /// M ← μM + G, where there is a gradient; ε as by `threshold`, where items have one; then X ← B / (‖B‖_F + 1e-7) with
  /// B = clamp(U, −ε, ε), U itself where there is no ε, or where it is zero as a float32 (clipping would erase the
  /// gradient). Comes after `check_momentum`, with the same numbers. The ε that is there before it is taken for that of
  /// the last step, a place to look first; one that is not above 0 tells that there was none.
  virtual Operand proximal(const Batch& batch) = 0;
  /// base ← clamp(U, −ε, ε) and outliers ← U − base, exact in float32: where U − ε needs one bit more than a float has,
  /// base gives way by that bit.
  virtual void soft_threshold(const Batch& batch, float* base, float* outliers) = 0;

  /// Uninitialised scratch that lives until the job ends.
  virtual Operand operand(const Batch& batch, int64_t rows, int64_t columns, Precision precision) = 0;
  /// out ← α·aᵀb + β·c where the result is known to be symmetric: only half of it is computed. β = 0: c is not read.
  /// a and b are of one precision; where a backend's Arithmetic has two, `out` may have the one of squares.
  virtual void gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                              const Operand& c) = 0;
  /// out ← a·b + β·c with symmetric b. β = 0: c is not read. Where a backend's Arithmetic has two precisions, b may
  /// have the one of squares; it is then rounded to a's, save the mean of its diagonal, and β has to be 0.
  virtual void gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) = 0;

  /// out ← z + a·I.
  virtual void add_identity(const Operand& out, const Operand& z, float a) = 0;

  /// θ ← decay·θ + rate·X; nothing where decay is 1 and rate 0, for −0 + 0 is 0.
  virtual void update(const Batch& batch, const Operand& x) = 0;
  /// torch.optim.AdamW, decoupled weight decay and bias correction included.
  virtual void adamw(const std::vector<Moments>& moments) = 0;
};

/// Work that touches nothing another job touches.
struct Job {
  double cost;  ///< in floating-point operations, roughly: what a backend balances by
  Footprint footprint;
  std::vector<uint32_t> parameters;  ///< whose data it writes
  std::function<void(Queue&)> enqueue;
};

/// A step: it happens where no check raises a flag. What a step changes from time to time lies in the memory that jobs
/// point to, so that a backend may prepare a plan once and run it again and again.
struct Plan {
  uint64_t version = 0;  ///< another one for every other plan of an optimizer
  std::vector<Job> checks;
  std::vector<Job> updates;
  uint32_t* flags = nullptr;  ///< one for each parameter
};

/// A device: its memory and its queues. The algorithm above knows no other way to reach it. Every call returns when its
/// work is done. Throws ERR_OUT_OF_MEMORY and ERR_CUDA.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual int threads() const = 0;
  virtual Arithmetic arithmetic() const = 0;
  /// Whether jobs work in the host's memory; if not, `hold` before anything that names parameters.
  virtual bool shares_host_memory() const = 0;
  /// Matrices that are worth a batch of their own shape.
  virtual int64_t batch_limit(const Footprint& footprint) const = 0;
  /// Held for good besides what was allocated: scratch that is kept from run to run, and parameters' arrays.
  virtual size_t held_bytes() const = 0;

  /// Zeroed memory of the device.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void read(void* host, const void* device, size_t bytes) = 0;
  virtual void write(void* device, const void* host, size_t bytes) = 0;

  /// Runs all jobs, in any order and side by side. Takes what memory they need before the first one starts,
  /// so that ERR_OUT_OF_MEMORY leaves everything as it was.
  virtual void run(const std::vector<Job>& jobs) = 0;

  /// Makes room for the data and gradients of parameters of these sizes; once.
  virtual void hold(const std::vector<int64_t>& sizes) = 0;
  /// Where jobs find them: `host` itself where memory is shared, else the same addresses for life.
  virtual std::vector<Arrays> held(const std::vector<Arrays>& host) const = 0;
  /// Runs a plan and returns the flags. `host`: gradients and data go in first and new data come out; empty: what is
  /// held stands, and stays where it is. Where it throws nothing has changed, or every later call throws as well.
  virtual std::vector<uint32_t> step(const Plan& plan, const std::vector<Arrays>& host) = 0;
  /// Copies data, not gradients.
  virtual void read_held(const std::vector<Arrays>& host) = 0;
  virtual void write_held(const std::vector<Arrays>& host) = 0;
  virtual void zero_held_gradients() = 0;
  /// A cudaStream_t, in whose order steps run.
  virtual void* stream() const = 0;
};

struct CudaDevice {
  std::string name;
  std::string description;
  double memory_bytes;
};

struct CudaReport {
  std::vector<CudaDevice> devices;
  std::string reason;  ///< why there is none; empty where there is one
};

struct CpuReport {
  std::string description;
  const char* instruction_set;
  int physical_cores;
  bool bfloat16;  ///< whether it multiplies that, besides float32
};

/// threads 0: the physical cores. Throws ERR_INVALID_ARGUMENT for a precision that the processor does not multiply.
std::unique_ptr<Backend> make_cpu_backend(int threads, Precision precision);
CpuReport cpu_report();
Arithmetic cpu_arithmetic(Precision precision);
/// FLOP/s of one core that multiplies and adds in registers alone; takes some tenths of a second. Throws
/// ERR_INVALID_ARGUMENT as above.
double cpu_peak(Precision precision);

/// Throws ERR_DEVICE_UNAVAILABLE with the reason.
std::unique_ptr<Backend> make_cuda_backend(int index, Precision precision);
CudaReport cuda_report();
inline Arithmetic cuda_arithmetic(Precision precision) { return {precision, precision}; }
/// Why a device of the report cannot be used at this moment, its memory being taken for example; empty where it can.
/// Creates the process's context there, which takes memory itself.
std::string cuda_obstacle(int index);

}  // namespace root_optimizer
