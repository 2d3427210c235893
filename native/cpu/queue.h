#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "../function_ref.h"
#include "../queue.h"
#include "../thread_pool.h"
#include "kernels.h"
#include "panel.h"
#include "selection.h"

namespace root_optimizer::cpu {

/// The scratch memory of one queue. It grows between jobs; within a job it is handed out from front to back.
class Arena {
 public:
  void reserve(size_t bytes);
  void* take(size_t bytes);
  template <typename T>
  T* take_array(int64_t count) {
    return static_cast<T*>(take(size_t(count) * sizeof(T)));
  }
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

/// What the check of a matrix, or of AdamW's moments, finds out for the update.
struct Clip {
  double threshold = 0;  ///< ε
  double norm = 0;       ///< ‖B‖_F
  GradientClip gradient;
};

/// The verbs run at once, in the calling thread or divided among the threads of a team. No sum depends on the division,
/// so no result depends on the number of threads. Batches have one matrix: see CpuBackend::takes.
class CpuQueue final : public Queue {
 public:
  /// `precision` is that of matrices: one that `kernels` multiply. `clips` has one for each
  /// Matrix::index.
  CpuQueue(const Kernels& kernels, Precision precision, int64_t second_level_cache, std::vector<Clip>& clips);

  static size_t scratch_bytes(const Kernels& kernels, Precision precision, const Footprint& footprint, int threads);
  void reserve(size_t bytes) { arena_.reserve(bytes); }
  size_t capacity() const { return arena_.capacity(); }
  /// Begins a job: all scratch is free again. `team` may be null.
  void begin(ThreadPool* team);

  void check(std::span<const Batch> batches, std::span<const Moments> moments) override;
  void threshold(std::span<const Batch> batches) override;
  void proximal(std::span<const Batch> batches, std::span<Operand> x) override;
  void soft_threshold(const Batch& batch, float* base, float* outliers) override;
  Operand operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) override;
  size_t mark() const override { return arena_.mark(); }
  void rewind(size_t mark) override { arena_.rewind(mark); }
  void gemm_symmetric(const Product& product) override;
  void gemm(const Product& product) override;
  void add_identity(const Operand& out, const Operand& z, float a, float b) override;
  void update(std::span<const Batch> batches, std::span<const Operand> x) override;
  void adamw(std::span<const Moments> moments) override;

 private:
  PanelLayout layout(const Operand& operand) const;
  Blocks blocks(const Operand& operand) const { return layout(operand).blocks(operand.storage); }

  // How work is divided.
  void for_each(int64_t count, FunctionRef<void(int64_t index)> task);
  /// Calls task(begin, end) for pieces of [0, size). Each piece but the last is a whole multiple of `grain`.
  void for_ranges(int64_t size, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> task);
  enum class Strips { by_rows, by_panels };
  /// Calls task(row, panel) for all panels, kStrip rows at a time.
  void for_strips(const PanelLayout& panels, Strips order, FunctionRef<void(int64_t row, int64_t panel)> task);
  /// Calls task(block) for the blocks of a product's result; if `symmetric`, for those on and below the diagonal.
  void for_blocks(int64_t rows, int64_t columns, bool symmetric, FunctionRef<void(const Block&)> task);
  template <typename Work, typename Kernel>
  void run_blocks(const Work& product, int64_t rows, int64_t columns, Kernel kernel);
  int64_t block_side(int64_t columns) const;
  /// Adds up what `sum` returns for ranges, in their order.
  double sum_of_ranges(int64_t size, FunctionRef<double(int64_t begin, int64_t end)> sum);

  // Parts of verbs, each in the file of its verb.
  enum class Result { general, symmetric };
  void multiply(const Product& product, Result result);
  GemmBlock float_product(const Product& product, Result result) const;
  PairBlock pair_product(const Product& product, Result result) const;
  void multiply_tiles(const Product& product, Result result);
  void gemm_narrowed(const Product& product);
  Operand narrowed(const Operand& square, float diagonal);
  float mean_of_diagonal(const Operand& square) const;
  void check(const Batch& batch);
  void check(const Moments& moments);
  void proximal(const Batch& batch, const Operand& x);
  void update(const Batch& batch, const Operand& x);
  const float* strip_floats(const Operand& x, int64_t row, int64_t panel, float* room) const;
  float* row_factors(const Batch& batch, const Operand& x);
  LookAhead look_ahead_of(const Batch& batch) const;
  bool all_finite(const LookAhead& u, int64_t size);
  double clipped_norm(const LookAhead& u, int64_t size, float limit);
  bool find_clip(const Batch& batch, Clip& clip);
  bool find_gradient_clip(const float* gradient, int64_t size, const GradientScalars& scalars,
                          const Thresholds& thresholds, GradientClip& clip);
  /// A quantile to be found, as a threshold: scale · quantile. `last` is the one of the step before, or 0.
  struct Search {
    double quantile, scale, last;
  };
  enum class Bracket { found, missed, not_finite, not_looked_at };
  Bracket find_near_last(const LookAhead& u, int64_t size, const Search& search, double& threshold, double* norm);
  double quantile_of(const LookAhead& u, int64_t size, double quantile);
  double select(int64_t size, FunctionRef<const uint32_t*(int64_t begin, int64_t end, uint32_t* room)> keys_of,
                const Digits& digits, int64_t skipped, const Position& position);

  const Kernels& kernels_;
  const Precision precision_;
  const int64_t depth_block_;  // of products
  std::vector<Clip>& clips_;
  ThreadPool* team_ = nullptr;
  Arena arena_;
  std::vector<int64_t> digit_counts_;  // for `select`
};

inline const Matrix& only(const Batch& batch) { return batch.matrices.front(); }

inline float* floats(const Operand& operand) { return static_cast<float*>(operand.storage); }
inline uint32_t* words(const Operand& operand) { return static_cast<uint32_t*>(operand.storage); }

/// The part of a matrix that panels hold at rows [row, row + length) and columns [column, column + columns).
Strip strip_of(const Batch& batch, int64_t row, int64_t length, int64_t column, int64_t columns);

/// Records the thresholds that a step has used.
void remember(Thresholds& thresholds, const Clip& clip, const GradientScalars& scalars);

constexpr int64_t kWidestPanel = 48;

/// The side of the part of a result that a thread computes at a time on matrix units: b's columns for it fit the
/// second-level cache. What one part needs is packed anew for the next.
constexpr int64_t kTileBlock = 256;

/// The scratch of a thread for products on matrix units: packed blocks, and a part's sums.
constexpr int64_t packed_words(int parts) { return kTileDepth * parts * Blocks::kWords; }
constexpr int64_t kTileSums = kTileBlock * kTileBlock;
constexpr size_t tile_scratch_bytes(Precision precision) {
  return sizeof(uint32_t) * size_t(packed_words(precision == Precision::bfloat16x3 ? 2 : 1) + kTileSums);
}

/// The elements that make a task worth handing to a thread.
constexpr int64_t kPassGrain = 1 << 14;

constexpr int64_t ranges_of(int64_t size, int64_t grain = kPassGrain) { return (size + grain - 1) / grain; }

}  // namespace root_optimizer::cpu
