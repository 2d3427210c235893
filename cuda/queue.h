#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../native/backend.h"
#include "gemm.cuh"

namespace root_optimizer {

/// Scratch memory, handed out from front to back within a job. Between two pieces there is room that is nobody's, so
/// that a checker sees who steps over an end.
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

/// Verbs are launches on one stream, each for all items of its batch.
class CudaQueue final : public Queue {
 public:
  /// `closed`: where it is not 0, no verb writes what outlives the job.
  CudaQueue(Precision precision, cudaStream_t stream, Arena& arena, const uint32_t* closed)
      : precision_(precision), stream_(stream), arena_(arena), gate_(closed) {}

  static size_t scratch_bytes(Precision precision, const Footprint& footprint);
  /// Begins a job: scratch is free again.
  void begin() { arena_.rewind(0); }

  void check_momentum(const Batch& batch) override;
  void check_moments(const std::vector<Moments>& moments) override;
  void threshold(const Batch& batch) override;
  Operand proximal(const Batch& batch) override;
  void soft_threshold(const Batch& batch, float* base, float* outliers) override;
  Operand operand(const Batch& batch, int64_t rows, int64_t columns, Precision precision) override;
  void gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                      const Operand& c) override;
  void gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) override;
  void add_identity(const Operand& out, const Operand& z, float a) override;
  void update(const Batch& batch, const Operand& x) override;
  void adamw(const std::vector<Moments>& moments) override;

 private:
  void momentum(const Batch& batch);

  template <typename T>
  T* take(size_t count) {
    return static_cast<T*>(arena_.take(count * sizeof(T), stream_));
  }

  const Precision precision_;
  const cudaStream_t stream_;
  Arena& arena_;
  const uint32_t* const gate_;
};

/// An operand as it lies in memory: a wide matrix of a batch as it is there, so transposed, with rows that begin at
/// multiples of 16 bytes.
Matrices stored(const Operand& operand);

/// Workspace of `threshold` and of `proximal` for a batch.
size_t selection_bytes(int64_t items);
size_t norm_bytes(int64_t size, int64_t items);

}  // namespace root_optimizer
