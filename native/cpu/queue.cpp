#include "queue.h"

#include <algorithm>
#include <cstdlib>

#include "memory.h"

namespace root_optimizer::cpu {

namespace {

size_t aligned(size_t bytes) {
  return (bytes + PanelLayout::kAlignment - 1) / PanelLayout::kAlignment * PanelLayout::kAlignment;
}

// The depth at which a block's rows of the first operand and a panel of the second fill at most three quarters of the
// cache. All of these rows meet that panel.
int64_t depth_block(const Kernels& kernels, int64_t cache) {
  const int64_t bytes_of_a_row = (kGemmBlock + kernels.panel_width) * int64_t(sizeof(float));
  return std::max<int64_t>(1, cache * 3 / 4 / bytes_of_a_row / kTerms) * kTerms;
}

}  // namespace

CpuQueue::CpuQueue(const Kernels& kernels, Precision precision, int64_t second_level_cache, std::vector<Clip>& clips)
    : kernels_(kernels),
      precision_(precision),
      depth_block_(depth_block(kernels, second_level_cache)),
      clips_(clips),
      digit_counts_(Digits::kMost) {}

void Arena::Free::operator()(void* memory) const { std::free(memory); }

void Arena::reserve(size_t bytes) {
  if (bytes <= capacity_) return;
  memory_.reset();
  capacity_ = 0;
  memory_.reset(take_memory(bytes));
  capacity_ = bytes;
}

void* Arena::take(size_t bytes) {
  void* memory = static_cast<char*>(memory_.get()) + used_;
  used_ += aligned(bytes);
  // A footprint smaller than what its job takes is a bug. It must not damage other memory.
  if (used_ > capacity_) std::abort();
  return memory;
}

// A square in pairs takes no more room than one in floats, and only its pairs of rows are in use. So it may lie where
// floats did.
size_t CpuQueue::scratch_bytes(const Kernels& kernels, Precision precision, const Footprint& f, int threads) {
  const auto bytes = [&](int64_t rows, int64_t columns) {
    const PanelLayout panels{.rows = rows,
                             .columns = columns,
                             .width = kernels.panel_width,
                             .row_tile = kernels.row_tile,
                             .precision = precision,
                             .is_tiled = kernels.tiles != nullptr};
    return aligned(panels.bytes());
  };
  size_t operands = 0;
  if (f.matrix_operands > 0) operands += size_t(f.matrix_operands) * bytes(f.long_side, f.short_side);
  if (f.square_operands > 0) operands += size_t(f.square_operands) * bytes(f.short_side, f.short_side);
  const bool narrows = kernels.tiles == nullptr && precision == Precision::bfloat16 && f.square_operands > 0;
  if (narrows) operands += bytes(f.short_side, f.short_side) / 2;
  if (kernels.tiles != nullptr && f.matrix_operands > 0) operands += size_t(threads) * tile_scratch_bytes(precision);
  if (f.normalizes)
    operands += aligned(size_t(f.long_side) * sizeof(double)) + aligned(size_t(f.long_side) * sizeof(float));
  const int64_t size = f.long_side * f.short_side;
  const size_t sums = aligned(size_t(ranges_of(size)) * sizeof(Bracketed));
  // Keys come in two lists, each of which begins at a cache line.
  const size_t keys = aligned(size_t(size) * sizeof(uint32_t)) + PanelLayout::kAlignment;
  return std::max(operands, f.selects ? 2 * sums + keys : sums);
}

void CpuQueue::begin(ThreadPool* team) {
  team_ = team;
  arena_.rewind(0);
}

PanelLayout CpuQueue::layout(const Operand& operand) const {
  return {.rows = operand.long_side(),
          .columns = operand.short_side(),
          .width = kernels_.panel_width,
          .row_tile = kernels_.row_tile,
          .precision = operand.precision,
          .is_tiled = kernels_.tiles != nullptr};
}

// Nothing is compensated on the CPU, so operands have one part.
Operand CpuQueue::operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool) {
  Operand operand{.rows = rows, .columns = columns, .count = count, .precision = precision};
  operand.storage = arena_.take(layout(operand).bytes());
  return operand;
}

void CpuQueue::for_each(int64_t count, FunctionRef<void(int64_t)> task) {
  if (team_ == nullptr) {
    for (int64_t i = 0; i < count; ++i) task(i);
  } else {
    team_->for_each(count, Order::by_place, [&](int64_t index, int) { task(index); });
  }
}

void CpuQueue::for_ranges(int64_t size, int64_t grain, FunctionRef<void(int64_t, int64_t)> task) {
  for_each(ranges_of(size, grain), [&](int64_t i) { task(i * grain, std::min(size, (i + 1) * grain)); });
}

// Divides by rows if a product comes before the pass, or comes after it and the matrix is tall. Products divide their
// results by rows too, so a core finds in its caches what was left there. Divides by panels if the pass reads a wide
// matrix, because panels consist of its rows.
void CpuQueue::for_strips(const PanelLayout& panels, Strips order, FunctionRef<void(int64_t, int64_t)> task) {
  const int64_t rows = panels.padded_rows();
  if (order == Strips::by_panels) {
    const int64_t strips = ranges_of(rows, kStrip);
    for_ranges(strips * panels.panels(), kPassGrain / (kStrip * panels.width) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) task(i % strips * kStrip, i / strips);
    });
    return;
  }
  const int64_t block = team_ != nullptr && rows < 16 * kGemmBlock ? kStrip : kGemmBlock;
  for_ranges(ranges_of(rows, block), kPassGrain / (block * panels.columns) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * block; first < std::min(end * block, rows); first += block) {
      for (int64_t panel = 0; panel < panels.panels(); ++panel) {
        for (int64_t row = first; row < std::min(first + block, rows); row += kStrip) task(row, panel);
      }
    }
  });
}

double CpuQueue::sum_of_ranges(int64_t size, FunctionRef<double(int64_t, int64_t)> sum) {
  const size_t mark = arena_.mark();
  const int64_t count = ranges_of(size);
  double* partial = arena_.take_array<double>(count);
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) { partial[begin / kPassGrain] = sum(begin, end); });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += partial[i];
  arena_.rewind(mark);
  return total;
}

LookAhead CpuQueue::look_ahead_of(const Batch& batch) const {
  const Matrix& matrix = only(batch);
  return {.momentum = matrix.momentum,
          .gradient = matrix.gradient,
          .mu = matrix.gradient == nullptr ? 0 : matrix.scalars->mu,
          .nesterov = batch.nesterov,
          .clips_gradient = batch.clips_gradient,
          .clip = clips_[matrix.index].gradient};
}

void remember(Thresholds& thresholds, const Clip& clip, const GradientScalars& scalars) {
  thresholds.gradient_scale = next_gradient_scale(thresholds.gradient_scale, clip.gradient.threshold, scalars.growth);
  thresholds.gradient_threshold = clip.gradient.threshold;
}

Strip strip_of(const Batch& batch, int64_t row, int64_t length, int64_t column, int64_t columns) {
  const int64_t stride = batch.columns;
  if (batch.rows >= batch.columns) {
    return {.first = row * stride + column, .stride = stride, .rows = length, .columns = columns, .transposed = false};
  }
  return {.first = column * stride + row, .stride = stride, .rows = columns, .columns = length, .transposed = true};
}

}  // namespace root_optimizer::cpu
