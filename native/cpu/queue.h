#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../backend.h"
#include "function_ref.h"
#include "kernels.h"
#include "panel.h"
#include "selection.h"
#include "thread_pool.h"

namespace root_optimizer {

/// Scratch of one queue: grows between jobs, is handed out from front to back within one.
class Arena {
 public:
  void reserve(size_t bytes);
  void* take(size_t bytes);
  size_t capacity() const { return capacity_; }
  size_t mark() const { return used_; }
  void rewind(size_t mark) { used_ = mark; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  std::unique_ptr<void, Free> memory_;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

/// Verbs run at once, in the calling thread or, where a team is given, divided among its threads. No sum depends on
/// how work is divided, so no result depends on how many threads there are.
class CpuQueue final : public Queue {
 public:
  /// `precision`: float32, or bfloat16 where `kernels` have it; that of matrices.
  CpuQueue(const Kernels& kernels, Precision precision, int64_t second_level_cache);

  static size_t scratch_bytes(const Kernels& kernels, Precision precision, const Footprint& footprint);
  void reserve(size_t bytes) { arena_.reserve(bytes); }
  size_t capacity() const { return arena_.capacity(); }
  /// Begins a job: scratch is free again. `team` may be null.
  void begin(ThreadPool* team);

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
  PanelLayout layout(const Operand& operand) const {
    return {operand.rows, operand.columns, kernels_.panel_width, kernels_.row_tile, operand.precision};
  }
  /// task(begin, end) over pieces of [0, size) that are whole multiples of `grain`, save the last.
  void for_ranges(int64_t size, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> task);
  void for_each(int64_t count, FunctionRef<void(int64_t index)> task);
  /// task(row, panel) over all panels, kStrip rows at a time.
  void for_strips(const PanelLayout& panels, bool by_panels, FunctionRef<void(int64_t row, int64_t panel)> task);
  int64_t block_side(int64_t columns) const;
  /// task(row, rows, column, columns) over blocks of a product's result, those on and below the diagonal if
  /// `symmetric`.
  void for_blocks(int64_t rows, int64_t columns, bool symmetric,
                  FunctionRef<void(int64_t, int64_t, int64_t, int64_t)> task);
  void gemm_narrowed(const Operand& out, const Operand& a, const Operand& b);
  /// A square of floats less `diagonal` times the identity in pairs of rows, in scratch that the caller gives back.
  Operand narrowed(const Operand& square, float diagonal);
  float mean_of_diagonal(const Operand& square) const;
  bool all_finite(const LookAhead& u, int64_t size);
  /// The sum of what `sum` returns for ranges, in their order.
  double sum_of_ranges(int64_t size, FunctionRef<double(int64_t begin, int64_t end)> sum);
  double clipped_norm(const LookAhead& u, int64_t size, float limit);
  /// An item's clip; false where U is not finite.
  bool find_clip(const Batch& batch);
  /// `finite`: no more than that U is; `nothing`: not even looked at.
  enum class Found { nothing, not_finite, finite, clip };
  Found find_near(const Batch& batch, const LookAhead& u);
  double quantile_of(const LookAhead& u, int64_t size, double quantile);
  /// The quantile at `position` of `size` keys that hold both order statistics around it; `skipped` smaller ones are
  /// left out. `keys_of` returns those of a range, and may write them to `room`. Linear in their number, whatever they
  /// are.
  double select(int64_t size, FunctionRef<const uint32_t*(int64_t begin, int64_t end, uint32_t* room)> keys_of,
                const Digits& digits, int64_t skipped, const Position& position);

  const Kernels& kernels_;
  const Precision precision_;
  const int64_t depth_block_;  // of products
  ThreadPool* team_ = nullptr;
  Arena arena_;
  std::vector<int64_t> digit_counts_;  // of `select`
};

/// The CPU takes matrices one at a time: see CpuBackend::batch_limit.
inline const Item& only(const Batch& batch) { return batch.items.front(); }

inline LookAhead look_ahead(const Batch& batch) {
  const Item& item = only(batch);
  return {item.momentum, item.gradient, item.gradient == nullptr ? 0 : item.scalars->mu, batch.nesterov};
}

inline float* floats(const Operand& operand) { return static_cast<float*>(operand.storage); }
inline uint32_t* words(const Operand& operand) { return static_cast<uint32_t*>(operand.storage); }

/// Of the matrix, in whose panel rows are [row, row + length) and columns [column, column + columns).
inline Strip strip_of(const Batch& batch, int64_t row, int64_t length, int64_t column, int64_t columns) {
  if (batch.transposed()) return {column * batch.columns + row, batch.columns, columns, length, true};
  return {row * batch.columns + column, batch.columns, length, columns, false};
}

/// The clipping bound in effect with a threshold, infinite where nothing is to be clipped.
float clip_limit(double threshold);

constexpr int64_t kWidestPanel = 48;

/// Elements that make a task worth handing to a thread.
constexpr int64_t kPassGrain = 1 << 14;

constexpr int64_t ranges_of(int64_t size, int64_t grain = kPassGrain) { return (size + grain - 1) / grain; }

}  // namespace root_optimizer
