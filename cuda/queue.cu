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

StoredMatrices stored(const Operand& o, int64_t index) {
  StoredMatrices m = stored(o);
  const size_t element_bytes = o.precision == Precision::float32 ? 4 : 2;
  const size_t offset = size_t(index * m.stride) * element_bytes;
  m.data = static_cast<char*>(m.data) + offset;
  if (m.low != nullptr) m.low = static_cast<char*>(m.low) + offset;
  return m;
}

size_t CudaQueue::scratch_bytes(Precision precision, std::span<const Footprint> job) {
  size_t x = 0;     // of all batches
  size_t rest = 0;  // of the batch that needs most
  for (const Footprint& f : job) {
    const auto bytes = [&](int64_t rows, int64_t columns, bool two_parts) {
      const Operand operand{
          .rows = rows, .columns = columns, .count = f.count, .precision = precision, .two_parts = two_parts};
      return Arena::padded(operand_bytes(operand));
    };
    const auto matrix_bytes = [&](int operand) {
      if (operand >= f.matrix_operands) return size_t(0);
      const bool two_parts = operand < f.two_part_operands;
      return std::max(bytes(f.long_side, f.short_side, two_parts), bytes(f.short_side, f.long_side, two_parts));
    };
    x += matrix_bytes(0);
    if (f.matrix_operands == 0) continue;
    size_t others = matrix_bytes(1) + size_t(f.square_operands) * bytes(f.short_side, f.short_side, false) +
                    split_bytes(precision, f.long_side, f.short_side, f.count);
    if (f.normalizes) others += row_bytes(f.long_side, f.short_side, f.count);
    rest = std::max(rest, others);
  }
  return std::max(x + rest, check_bytes(job));
}

Operand CudaQueue::operand(int64_t rows, int64_t columns, int64_t count, Precision precision, bool two_parts) {
  Operand operand{.rows = rows, .columns = columns, .count = count, .precision = precision, .two_parts = two_parts};
  operand.storage = arena_.take(operand_bytes(operand), stream_);
  return operand;
}

}  // namespace root_optimizer::cuda
