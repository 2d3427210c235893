#include "queue.h"

#include <algorithm>
#include <cstdlib>

#include "launch.cuh"

namespace root_optimizer {

namespace {

int64_t pitch_of(int64_t columns) { return (columns + 7) / 8 * 8; }

size_t element_bytes(Precision precision) { return precision == Precision::float32 ? 4 : 2; }

size_t operand_bytes(const Operand& operand) {
  const Matrices m = stored(operand);
  return element_bytes(operand.precision) * size_t(m.stride * operand.items);
}

}  // namespace

void Arena::reset(void* memory, size_t capacity) {
  memory_ = static_cast<char*>(memory);
  capacity_ = capacity;
  used_ = 0;
}

void* Arena::take(size_t bytes, cudaStream_t stream) {
  void* memory = memory_ + used_;
  used_ += padded(bytes);
  if (used_ > capacity_)
    std::abort();  // A footprint that promises less than its job takes is a bug, and memory is not to pay for it.
  announce(memory, bytes, stream);
  return memory;
}

Matrices stored(const Operand& o) {
  const int64_t rows = o.transposed ? o.columns : o.rows;
  const int64_t columns = o.transposed ? o.rows : o.columns;
  return {o.storage, rows, columns, pitch_of(columns), rows * pitch_of(columns)};
}

size_t CudaQueue::scratch_bytes(Precision precision, const Footprint& f) {
  size_t bytes = 0;
  if (f.tall_operands > 0) {
    const size_t standing = operand_bytes({f.tall, f.narrow, nullptr, precision, f.items, false});
    const size_t lying = operand_bytes({f.tall, f.narrow, nullptr, precision, f.items, true});
    bytes += size_t(f.tall_operands) * Arena::padded(std::max(standing, lying));
    bytes += norm_bytes(f.tall * f.narrow, f.items);
  }
  bytes += size_t(f.square_operands) *
           Arena::padded(operand_bytes({f.narrow, f.narrow, nullptr, precision, f.items, false}));
  if (f.selection) bytes += selection_bytes(f.items);
  return bytes;
}

Operand CudaQueue::operand(const Batch& batch, int64_t rows, int64_t columns, Precision precision) {
  const bool transposed = rows > columns && batch.rows < batch.columns;
  Operand operand{rows, columns, nullptr, precision, int64_t(batch.items.size()), transposed};
  operand.storage = arena_.take(operand_bytes(operand), stream_);
  return operand;
}

void CudaQueue::gemm_symmetric(const Operand& out, float alpha, const Operand& a, const Operand& b, float beta,
                               const Operand& c) {
  const Product product = a.transposed ? Product::rows_by_rows : Product::columns_by_columns;
  launch_gemm(precision_, {product, true, alpha, beta, stored(out), stored(a), stored(b), stored(c), out.items},
              stream_);
}

// b is symmetric: of a transposed a, (a·b)ᵀ = b·aᵀ is formed; else b's rows serve as its columns.
void CudaQueue::gemm(const Operand& out, const Operand& a, const Operand& b, float beta, const Operand& c) {
  const Matrices left = stored(a.transposed ? b : a);
  const Matrices right = stored(a.transposed ? a : b);
  const Product product = a.transposed ? Product::plain : Product::rows_by_rows;
  launch_gemm(precision_, {product, false, 1, beta, stored(out), left, right, stored(c), out.items}, stream_);
}

}  // namespace root_optimizer
