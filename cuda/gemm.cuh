#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../native/batch.h"

namespace root_optimizer::cuda {

/// One matrix for each of a batch: row-major, rows `pitch` elements apart, matrices `stride` elements apart. `data` is
/// aligned to 128 bytes; pitch and stride are multiples of 8. Elements of a row from `columns` up to `pitch` are zeros.
struct StoredMatrices {
  void* data = nullptr;
  void* low = nullptr;  ///< the second parts of the elements, which lie alike and are scaled; null: there are none
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

/// A matrix for each of a batch that is added to a product. Factor 0: it is not read. It has one part.
struct Addend {
  StoredMatrices matrices;
  float factor = 0;
};

/// out ← α·product + the addends, matrix by matrix. `out` shares no memory with what is read. Only the first parts of a
/// and b are multiplied. Where `out` has second parts, they get what the rounding of the first ones takes away.
///
/// `symmetric`: the result is known to be symmetric. The tiles on and below the diagonal are computed and stored twice,
/// so that `out` is exactly symmetric. A symmetric product is one of rows by rows or of columns by columns, any other
/// product one of rows by rows or plain.
struct Gemm {
  Contraction contraction;
  bool symmetric;
  float alpha;
  StoredMatrices out, a, b;
  Addend addends[2];
  int64_t count;
  float* parts = nullptr;  ///< not null: a symmetric product without addends is split along its depth. The sums of each
                           ///< part go here, part by part and matrix by matrix as `out` lies, and α is not applied
  int64_t part_depth = 0;  ///< a multiple of every tile's depth
  const Matrix* update =
      nullptr;  ///< not null: the result is these matrices' update direction. It updates them, and
                ///< nothing is stored in `out`. Of products of 16-bit elements that are not symmetric
  const uint32_t* gate = nullptr;  ///< of an update, which does nothing if it points to anything but 0
};

/// Sums are float32. Every element is rounded once, after the addends have been added. It is summed in the order of the
/// depth, whatever its place, the shape and the batch are, so none of these changes a bit of it.
void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream);

}  // namespace root_optimizer::cuda
