#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../native/formulas.h"
#include "../native/queue.h"
#include "gemm.cuh"

namespace root_optimizer::cuda {

/// Scratch memory, handed out from front to back within a job. Nobody owns the room between two pieces, so that a
/// checker sees who steps over an end.
class Arena {
 public:
  static constexpr size_t kAlignment = 256;
  static constexpr size_t kGap = 128;

  static size_t padded(size_t bytes) { return (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment; }

  void reset(void* memory, size_t capacity);
  void* take(size_t bytes, cudaStream_t stream);
  size_t capacity() const { return capacity_; }
  size_t mark() const { return used_; }
  void rewind(size_t mark) { used_ = mark; }

 private:
  char* memory_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

/// What the check of a matrix or of moments finds out for the update.
struct CheckNote {
  GradientClip gradient;  ///< how G is clipped
  double next_scale;      ///< e after the step
  double threshold;       ///< ε; 0: U is not clipped
  double factor;          ///< 1 / (‖B‖_F + 1e-7); negative: not known yet
};

struct Search;
struct Workspace;

/// The verbs are launches on one stream, each for all matrices of a batch.
class CudaQueue final : public Queue {
 public:
  /// If `closed` points to anything but 0, no verb writes what outlives the job. `notes` has one for each
  /// Matrix::index and Moments::index.
  CudaQueue(Precision precision, cudaStream_t stream, Arena& arena, const uint32_t* closed, CheckNote* notes)
      : precision_(precision), stream_(stream), arena_(arena), gate_(closed), notes_(notes) {}

  static size_t scratch_bytes(Precision precision, const Footprint& footprint);
  /// Begins a job: all scratch is free again.
  void begin() { arena_.rewind(0); }

  void check_matrices(std::span<const Batch> batches) override;
  void check_moments(std::span<const Moments> moments) override;
  void threshold(std::span<const Batch> batches) override;
  void proximal(std::span<const Batch> batches, std::span<Operand> x) override;
  void soft_threshold(const Batch& batch, float* base, float* outliers) override;
  Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) override;
  void gemm_symmetric(const Product& product) override;
  void gemm(const Product& product) override;
  void add_identity(const Operand& out, const Operand& z, float a, float b) override;
  void update(std::span<const Batch> batches, std::span<const Operand> x) override;
  void adamw(std::span<const Moments> moments) override;

 private:
  // Parts of verbs, each in the file of its verb.
  /// Finds the quantiles of one list, in scratch that the caller gives back.
  Workspace select(const std::vector<Search>& searches, bool nesterov, bool near_last);
  void find_gradient_clips(const Batch& batch);
  void find_gradient_clips(std::span<const Moments> moments);
  /// Notes ε and ‖B‖, and raises flags.
  void find_clips(const Batch& batch);
  /// Brings v up to date. Returns the factors of the rows, in scratch that the caller gives back.
  float* row_factors(const Batch& batch, const Operand& x);

  template <typename T>
  T* take(size_t count) {
    return static_cast<T*>(arena_.take(count * sizeof(T), stream_));
  }

  const Precision precision_;
  const cudaStream_t stream_;
  Arena& arena_;
  const uint32_t* const gate_;
  CheckNote* const notes_;
};

/// An operand as it lies in memory: row-major like its batch, rows at multiples of 16 bytes and padded with zeros.
StoredMatrices stored(const Operand& operand);

/// A launch's grid for parameters of different sizes.
dim3 moments_grid(std::span<const Moments> moments);

/// The workspace of a product that sums over the long side.
size_t split_bytes(Precision precision, int64_t long_side, int64_t short_side, int64_t count);

/// The workspace of the checks of `count` matrices or moments of `size` elements, and of an `update` that normalizes
/// rows.
size_t check_bytes(int64_t size, int64_t count, bool selects, bool near_last);
size_t row_bytes(int64_t long_side, int64_t short_side, int64_t count);

}  // namespace root_optimizer::cuda
