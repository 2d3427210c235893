#include "queue.h"

#include <algorithm>
#include <cstdlib>

#include "launch.cuh"

namespace root_optimizer::cuda {

constexpr size_t kOperandAlignment = 128;

static int64_t pitch_of(int64_t columns) { return (columns + 7) / 8 * 8; }

// Second parts begin after the first ones, at a multiple of the alignment of operands.
static size_t part_bytes(const Operand& o) {
  const size_t element_bytes = o.precision == Precision::float32 ? 4 : 2;
  const size_t bytes = element_bytes * size_t(o.rows * pitch_of(o.columns) * o.count);
  return o.two_parts ? (bytes + kOperandAlignment - 1) / kOperandAlignment * kOperandAlignment : bytes;
}

static size_t operand_bytes(const Operand& o) { return part_bytes(o) * (o.two_parts ? 2 : 1); }

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
  StoredMatrices m{.data = o.storage,
                   .low = nullptr,
                   .rows = o.rows,
                   .columns = o.columns,
                   .pitch = pitch_of(o.columns),
                   .stride = o.rows * pitch_of(o.columns)};
  if (o.two_parts) m.low = static_cast<char*>(o.storage) + part_bytes(o);
  return m;
}

size_t CudaQueue::scratch_bytes(Precision precision, const Footprint& f) {
  const auto bytes = [&](int64_t rows, int64_t columns, bool two_parts) {
    const Operand operand{
        .rows = rows, .columns = columns, .count = f.count, .precision = precision, .two_parts = two_parts};
    return Arena::padded(operand_bytes(operand));
  };
  const auto matrix_bytes = [&](bool two_parts) {
    return std::max(bytes(f.long_side, f.short_side, two_parts), bytes(f.short_side, f.long_side, two_parts));
  };
  if (f.matrix_operands == 0) return check_bytes(f.long_side * f.short_side, f.count, f.selects, f.near_last);
  size_t total = size_t(f.two_part_operands) * matrix_bytes(true) +
                 size_t(f.matrix_operands - f.two_part_operands) * matrix_bytes(false) +
                 size_t(f.square_operands) * bytes(f.short_side, f.short_side, false) +
                 split_bytes(precision, f.long_side, f.short_side, f.count);
  if (f.normalizes) total += row_bytes(f.long_side, f.short_side, f.count);
  return total;
}

Operand CudaQueue::operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) {
  Operand operand{.rows = rows, .columns = columns, .count = count, .precision = precision, .two_parts = two_parts};
  operand.storage = arena_.take(operand_bytes(operand), stream_);
  return operand;
}

}  // namespace root_optimizer::cuda
