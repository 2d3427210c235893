#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace root_optimizer {

/// One matrix of a batch. Every address lies in the backend's memory, row-major, rows × columns of the batch.
struct Item {
  float* data;            ///< θ, read and written by `update`
  const float* gradient;  ///< G; null: M stands for itself, as where a function is applied to an array
  float* momentum;        ///< M
  double* threshold;      ///< ε of this step; null: no clipping
};

/// Same-shaped matrices that go through every verb together, and how their look-ahead is formed.
///
/// U = G + μM with `nesterov`, else M. It is never stored: each pass forms it anew from M and G, with one rounding
/// after the product and one after the sum, so that every backend sees the same bits.
struct Batch {
  int64_t rows;
  int64_t columns;
  float mu;
  bool nesterov;
  std::vector<Item> items;

  int64_t size() const { return rows * columns; }
  int64_t tall() const { return rows > columns ? rows : columns; }
  int64_t narrow() const { return rows > columns ? columns : rows; }
};

/// AdamW's share of a step, for `size` consecutive elements.
struct Moments {
  int64_t size;
  float* data;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
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

/// Matrices inside the Newton-Schulz iteration, one for each item of a batch, in a layout that is the backend's own
/// business. The iteration is written for tall matrices (rows ≥ columns): a wide matrix enters and leaves transposed.
/// The storage of an operand may serve a smaller one instead.
struct Operand {
  int64_t rows = 0;
  int64_t columns = 0;
  float* storage = nullptr;
};

/// What a job needs at most of a queue's scratch memory, in operands of its batch; `selection`: it calls `threshold`.
struct Footprint {
  int64_t tall = 0;
  int64_t narrow = 0;
  int tall_operands = 0;
  int square_operands = 0;
  bool selection = false;
};

/// An order of work on a device. Verbs enqueue; nothing is waited for here, and no scalar travels to the host.
class Queue {
 public:
  virtual ~Queue() = default;

  /// *flag ← 1 where μM + G or the look-ahead made of it is not finite in any item; nothing else is written.
  virtual void check_momentum(const Batch& batch, uint32_t* flag) = 0;
  /// *flag ← 1 where the step's moments would not be finite.
  virtual void check_moments(const Moments& moments, const AdamWScalars& scalars, uint32_t* flag) = 0;

  /// M ← μM + G.
  virtual void momentum(const Batch& batch) = 0;
  /// ε ← scale · quantile of |U| over each item: numpy.quantile(|U|, q, method='linear') of the float32 values in
  /// float64, exactly.
  virtual void threshold(const Batch& batch, double quantile, double scale) = 0;
  /// X ← B / (‖B‖_F + 1e-7) with B = clamp(U, −ε, ε); U itself where there is no ε, or
  /// where it is zero as a float32 (clipping would erase the gradient).
  virtual Operand proximal(const Batch& batch) = 0;
  /// base ← clamp(U, −ε, ε) and outliers ← U − base, exact in float32: where U − ε needs one bit more than a float has,
  /// base gives way by that bit.
  virtual void soft_threshold(const Batch& batch, float* base, float* outliers) = 0;

  /// Uninitialised scratch that lives until the job ends.
  virtual Operand operand(const Batch& batch, int64_t rows, int64_t columns) = 0;
  /// out ← α·aᵀb + β·c where the result is known to be symmetric: only half of it is computed. β = 0: c is not read.
  virtual void gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                              const Operand& c) = 0;
  /// out ← a·b + β·c. β = 0: c is not read.
  virtual void gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) = 0;

  /// out ← z + a·I.
  virtual void add_identity(const Operand& out, const Operand& z, float a) = 0;

  /// θ ← decay·θ + rate·X. decay = 0: θ is not read.
  virtual void update(const Batch& batch, const Operand& x, float decay, float rate) = 0;
  /// torch.optim.AdamW, decoupled weight decay and bias correction included.
  virtual void adamw(const Moments& moments, const AdamWScalars& scalars) = 0;
};

/// Work that touches nothing another job touches.
struct Job {
  double cost;  ///< in floating-point operations, roughly: what a backend balances by
  Footprint footprint;
  std::function<void(Queue&)> enqueue;
};

/// A device: its memory and its queues. The algorithm above knows no other way to reach it.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual int threads() const = 0;
  /// Scratch that is kept from run to run.
  virtual size_t scratch_bytes() const = 0;

  /// Zeroed memory of the device. Throws ERR_OUT_OF_MEMORY.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  /// Copies to the host after all enqueued work.
  virtual void read(void* host, const void* device, size_t bytes) = 0;
  virtual void write(void* device, const void* host, size_t bytes) = 0;

  /// Enqueues all jobs, in any order and side by side. Takes what memory they need before the first one starts,
  /// so that ERR_OUT_OF_MEMORY leaves everything as it was.
  virtual void run(const std::vector<Job>& jobs) = 0;
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
};

/// threads 0: the physical cores.
std::unique_ptr<Backend> make_cpu_backend(int threads);
CpuReport cpu_report();
/// FLOP/s of one core that multiplies and adds in registers alone; takes some tenths of a second.
double cpu_peak();

/// Throws ERR_DEVICE_UNAVAILABLE with the reason.
std::unique_ptr<Backend> make_cuda_backend(int index);
CudaReport cuda_report();

}  // namespace root_optimizer
