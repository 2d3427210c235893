#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "../native/formulas.h"
#include "../native/queue.h"
#include "gemm.cuh"
#include "tables.h"

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

struct PassMatrix;
struct Search;
struct Selected;
struct Share;

/// The verbs are launches on one stream. A product is a launch for all matrices of a batch, a pass a launch for all
/// batches of a job.
class CudaQueue final : public Queue {
 public:
  /// If `closed` points to anything but 0, no verb writes what outlives the job. `notes` has one for each
  /// Matrix::index and Moments::index.
  CudaQueue(Precision precision, cudaStream_t stream, Arena& arena, Tables& tables, const uint32_t* closed,
            CheckNote* notes)
      : precision_(precision), stream_(stream), arena_(arena), tables_(tables), gate_(closed), notes_(notes) {}

  static size_t scratch_bytes(Precision precision, std::span<const Footprint> job);
  /// Begins a job: all scratch is free again.
  void begin() { arena_.rewind(0); }

  void check(std::span<const Batch> batches, std::span<const Moments> moments) override;
  void threshold(std::span<const Batch> batches) override;
  void proximal(std::span<const Batch> batches, std::span<Operand> x) override;
  void soft_threshold(const Batch& batch, float* base, float* outliers) override;
  Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) override;
  size_t mark() const override { return arena_.mark(); }
  void rewind(size_t mark) override { arena_.rewind(mark); }
  void gemm_symmetric(const Product& product) override;
  void gemm(const Product& product) override;
  bool newton_schulz(const ProductPlan& plan, const Batch& batch, const Operand& x) override;
  void add_identity(const Operand& out, const Operand& z, float a, float b) override;
  void update(std::span<const Batch> batches, std::span<const Operand> x) override;
  void adamw(std::span<const Moments> moments) override;

 private:
  // Parts of verbs, each in the file of its verb.
  /// Finds the quantiles of a list, in scratch that the caller gives back.
  Selected select(std::vector<Search> searches);
  void find_gradient_clips(std::span<const Batch> batches, std::span<const Moments> moments);
  /// Notes ε and ‖B‖, and raises flags.
  void find_clips(std::span<const Batch> batches);
  /// Brings v up to date. Returns the factors of the rows, in scratch that the caller gives back.
  float* row_factors(const Batch& batch, const Matrix* matrices, const Operand& x);
  struct MomentsPass {
    const Moments* list;
    const Share* shares;
    unsigned blocks;
  };
  MomentsPass pass_over(std::span<const Moments> moments);

  template <typename T>
  T* take(size_t count) {
    return static_cast<T*>(arena_.take(count * sizeof(T), stream_));
  }

  const Precision precision_;
  const cudaStream_t stream_;
  Arena& arena_;
  Tables& tables_;
  const uint32_t* const gate_;
  CheckNote* const notes_;
};

/// An operand as it lies in memory: row-major like its batch, rows at multiples of 16 bytes and padded with zeros.
StoredMatrices stored(const Operand& operand);
/// One matrix of an operand.
StoredMatrices stored(const Operand& operand, int64_t index);

/// The workspace of a product that sums over the long side.
size_t split_bytes(Precision precision, int64_t long_side, int64_t short_side, int64_t count);

/// The workspace of a check.
size_t check_bytes(std::span<const Footprint> job);
/// The workspace of an `update` that normalizes rows.
size_t row_bytes(int64_t long_side, int64_t short_side, int64_t count);

}  // namespace root_optimizer::cuda
