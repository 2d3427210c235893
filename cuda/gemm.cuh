#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../native/batch.h"

namespace root_optimizer::cuda {

/// One matrix for each of a batch: row-major, rows `pitch` elements apart, matrices `stride` elements apart. `data` is
/// aligned to 128 bytes; pitch and stride are multiples of 8. Elements of a row from `columns` up to `pitch` are zeros.
struct StoredMatrices {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t pitch = 0;
  int64_t stride = 0;
};

/// The dimensions over which a product sums.
enum class Contraction {
  rows_by_rows,        ///< abᵀ
  columns_by_columns,  ///< aᵀb
  plain,               ///< ab
};

/// out ← α·product + β·c, matrix by matrix. β = 0: c is not read. `out` shares no memory with a, b or c.
///
/// `symmetric`: the result is known to be symmetric. The tiles on and below the diagonal are computed and stored twice,
/// so that `out` is exactly symmetric. A symmetric product is one of rows by rows or of columns by columns, any other
/// product one of rows by rows or plain.
struct Gemm {
  Contraction contraction;
  bool symmetric;
  float alpha, beta;
  StoredMatrices out, a, b, c;
  int64_t count;
};

/// Sums are float32. Every element is rounded once, after β·c has been added. It is summed in the order of the depth,
/// whatever its place, the shape and the batch are, so none of these changes a bit of it.
void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream);

}  // namespace root_optimizer::cuda
