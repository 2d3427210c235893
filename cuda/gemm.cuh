#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../native/backend.h"

namespace root_optimizer {

/// A matrix of every item of a batch: row-major, rows `pitch` elements apart, items `stride` elements. `data` is
/// aligned to 128 bytes; pitch and stride are multiples of 8. Elements of a row from `columns` up to `pitch` are zeros.
struct Matrices {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t pitch = 0;
  int64_t stride = 0;
};

enum class Product {
  rows_by_rows,        ///< a·bᵀ
  columns_by_columns,  ///< aᵀ·b
  plain,               ///< a·b
};

/// out ← α·product + β·c, item by item. β = 0: c is not read. `out` shares no memory with a, b or c.
///
/// `symmetric`: the result is known to be. The tiles on and below the diagonal are computed and stored twice, which
/// makes `out` exactly symmetric. Symmetric are products of rows by rows and of columns by columns; not symmetric are
/// those of rows by rows and plain ones; there are no others.
struct Gemm {
  Product product;
  bool symmetric;
  float alpha, beta;
  Matrices out, a, b, c;
  int64_t count;  ///< items
};

/// Sums are float32; every element is rounded once, after β·c has been added. An element is summed in the order of the
/// depth whatever its place, the shape and the batch, so that these don't change a bit of it.
void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream);

}  // namespace root_optimizer
