#include "queue.h"

#include <algorithm>
#include <cstdlib>

#include "launch.cuh"

namespace root_optimizer::cuda {

static int64_t pitch_of(int64_t columns) { return (columns + 7) / 8 * 8; }

static size_t operand_bytes(const Operand& operand) {
  const size_t element_bytes = operand.precision == Precision::float32 ? 4 : 2;
  return element_bytes * size_t(stored(operand).stride * operand.count);
}

void Arena::reset(void* memory, size_t capacity) {
  memory_ = static_cast<char*>(memory);
  capacity_ = capacity;
  used_ = 0;
}

void* Arena::take(size_t bytes, cudaStream_t stream) {
  void* memory = memory_ + used_;
  used_ += padded(bytes);
  // A footprint smaller than what its job takes is a bug. It must not damage other memory.
  if (used_ > capacity_) std::abort();
  poison(memory, bytes, stream);
  return memory;
}

StoredMatrices stored(const Operand& o) {
  return {.data = o.storage,
          .rows = o.rows,
          .columns = o.columns,
          .pitch = pitch_of(o.columns),
          .stride = o.rows * pitch_of(o.columns)};
}

size_t CudaQueue::scratch_bytes(Precision precision, const Footprint& f) {
  const auto bytes = [&](int64_t rows, int64_t columns) {
    return operand_bytes({.rows = rows, .columns = columns, .count = f.count, .precision = precision});
  };
  size_t total = 0;
  if (f.matrix_operands > 0) {
    const size_t either = std::max(bytes(f.long_side, f.short_side), bytes(f.short_side, f.long_side));
    total += size_t(f.matrix_operands) * Arena::padded(either) + norm_bytes(f.long_side * f.short_side, f.count);
  }
  total += size_t(f.square_operands) * Arena::padded(bytes(f.short_side, f.short_side));
  if (f.selects) total += selection_bytes(f.count);
  if (f.normalizes) total += row_bytes(f.long_side, f.short_side, f.count);
  return total;
}

Operand CudaQueue::operand(int64_t rows, int64_t columns, int64_t count, Precision precision) {
  Operand operand{.rows = rows, .columns = columns, .count = count, .precision = precision};
  operand.storage = arena_.take(operand_bytes(operand), stream_);
  return operand;
}

}  // namespace root_optimizer::cuda
