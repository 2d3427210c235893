#include "queue.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "memory.h"

namespace root_optimizer {

namespace {

size_t aligned(size_t bytes) {
  return (bytes + PanelLayout::kAlignment - 1) / PanelLayout::kAlignment * PanelLayout::kAlignment;
}

// As deep as a block's rows of the first operand and a panel of the second, which all of them meet, fit three quarters
// of the cache.
int64_t depth_block(const Kernels& kernels, int64_t cache) {
  const int64_t bytes_of_a_row = (kGemmBlock + kernels.panel_width) * int64_t(sizeof(float));
  return std::max<int64_t>(1, cache * 3 / 4 / bytes_of_a_row / kTerms) * kTerms;
}

}  // namespace

CpuQueue::CpuQueue(const Kernels& kernels, Precision precision, int64_t second_level_cache)
    : kernels_(kernels),
      precision_(precision),
      depth_block_(depth_block(kernels, second_level_cache)),
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
  if (used_ > capacity_)
    std::abort();  // A footprint that promises less than its job takes is a bug, and memory is not to pay for it.
  return memory;
}

// Squares in pairs take no less than in floats. Only their pairs of rows are in use, so that they may lie where floats
// did.
size_t CpuQueue::scratch_bytes(const Kernels& kernels, Precision precision, const Footprint& f) {
  const auto bytes = [&](int64_t rows, int64_t columns) {
    return aligned(PanelLayout{rows, columns, kernels.panel_width, kernels.row_tile, precision}.bytes());
  };
  size_t operands = 0;
  if (f.tall_operands > 0) operands += size_t(f.tall_operands) * bytes(f.tall, f.narrow);
  if (f.square_operands > 0) operands += size_t(f.square_operands) * bytes(f.narrow, f.narrow);
  const bool narrows = precision == Precision::bfloat16 && f.square_operands > 0;
  if (narrows) operands += bytes(f.narrow, f.narrow) / 2;
  const int64_t size = f.tall * f.narrow;
  const size_t sums = aligned(size_t(ranges_of(size)) * sizeof(Bracketed));
  // Keys, in two lists that begin at a cache line each.
  const size_t keys = aligned(size_t(size) * sizeof(uint32_t)) + PanelLayout::kAlignment;
  return std::max(operands, f.selection ? 2 * sums + keys : sums);
}

void CpuQueue::begin(ThreadPool* team) {
  team_ = team;
  arena_.rewind(0);
}

Operand CpuQueue::operand(const Batch&, int64_t rows, int64_t columns, Precision precision) {
  Operand operand{rows, columns, nullptr, precision};
  operand.storage = arena_.take(layout(operand).bytes());
  return operand;
}

void CpuQueue::for_each(int64_t count, FunctionRef<void(int64_t)> task) {
  if (team_ == nullptr) {
    for (int64_t i = 0; i < count; ++i) task(i);
  } else {
    team_->for_each(count, true, [&](int64_t index, int) { task(index); });
  }
}

void CpuQueue::for_ranges(int64_t size, int64_t grain, FunctionRef<void(int64_t, int64_t)> task) {
  for_each(ranges_of(size, grain), [&](int64_t i) { task(i * grain, std::min(size, (i + 1) * grain)); });
}

// By rows where a product comes before the pass, or after it where the matrix is tall: products divide their results
// likewise, and what follows finds in a core's caches what was left there. By panels where the pass reads a wide matrix
// whose rows they are.
void CpuQueue::for_strips(const PanelLayout& panels, bool by_panels, FunctionRef<void(int64_t, int64_t)> task) {
  const int64_t rows = panels.padded_rows();
  if (by_panels) {
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

float clip_limit(double threshold) {
  const float limit = float(threshold);
  return limit == 0 ? std::numeric_limits<float>::infinity() : limit;
}

}  // namespace root_optimizer
