#pragma once

#include <cstdint>

namespace root_optimizer {

/// How an Operand lies in memory: panels of `width` columns, each `rows` × `width` contiguous, so that every product
/// reads its two operands and writes its result in the one layout and nothing is packed between products. Rows are
/// padded to whole row tiles and columns to whole panels, so that kernels know no edges. Padding starts as zeros and no
/// sum runs over it.
struct PanelLayout {
  static constexpr int64_t kAlignment = 64;  // bytes: a cache line, and the widest vector

  int64_t rows, columns, width, row_tile;

  int64_t padded_rows() const { return (rows + row_tile - 1) / row_tile * row_tile; }
  int64_t panels() const { return (columns + width - 1) / width; }
  /// Floats from a panel to the next. A cache line more than its content: panels a power of two apart would meet in few
  /// cache sets.
  int64_t pitch() const { return padded_rows() * width + kAlignment / int64_t(sizeof(float)); }
  int64_t size() const { return panels() * pitch(); }
};

}  // namespace root_optimizer
