#pragma once

#include <cstdint>

#include "../backend.h"

namespace root_optimizer {

/// How an Operand lies in memory: panels of `width` columns, each `rows` × `width` contiguous, so that every product
/// reads its two operands and writes its result in the one layout and nothing is packed between products. Rows are
/// padded to whole row tiles and columns to whole panels, so that kernels know no edges. No sum of floats runs over
/// padding. As X enters it is zeros, and what products make of the one row or column that makes an odd number even
/// stays so.
///
/// bfloat16 lies in words of two values, the first in the lower half, and sums run over both. Where the depth of a
/// product goes down a panel they are neighbours in a column, where it goes across neighbours in a row; so there is a
/// copy of either kind, one after the other. A panel of the first is one of floats with half as many rows, a panel of
/// the second one of half the width.
struct PanelLayout {
  static constexpr int64_t kAlignment = 64;  // bytes: a cache line, and the widest vector

  int64_t rows, columns, width, row_tile;
  Precision precision;

  bool paired() const { return precision == Precision::bfloat16; }
  /// What products of floats have to compute: pairs of rows, as bfloat16 is made of such a result.
  int64_t paired_rows() const { return (rows + 1) / 2 * 2; }
  int64_t padded_rows() const { return (rows + row_tile - 1) / row_tile * row_tile; }
  int64_t panels() const { return (columns + width - 1) / width; }
  /// Floats, or words, from a panel to the next, of either copy. A cache line more than its content: panels a power of
  /// two apart would meet in few cache sets.
  int64_t pitch() const { return padded_rows() * width / (paired() ? 2 : 1) + kAlignment / int64_t(sizeof(float)); }
  /// Floats or words from the pairs of rows to the pairs of columns.
  int64_t copy_size() const { return panels() * pitch(); }
  size_t bytes() const { return sizeof(float) * size_t(copy_size() * (paired() ? 2 : 1)); }
};

}  // namespace root_optimizer
