#pragma once

#include <cstdint>

#include "../batch.h"
#include "kernels.h"

namespace root_optimizer::cpu {

/// How an operand lies in memory. Its long side runs down, its short side across: a wide matrix is transposed on its
/// way in and out.
///
/// - A panel is `width` columns; its rows × `width` elements are contiguous. Every product reads both operands and
///   writes its result in this layout, so nothing is packed between products.
/// - Rows are padded to whole row tiles and columns to whole panels, so that kernels know no edges. No sum of floats
///   runs over padding.
/// - bfloat16 lies in words of two values, the first value in the lower half, and sums run over both. There are two
///   copies, one after the other. The first pairs neighbours in a column, for products whose depth goes down a panel;
///   its panel is a panel of floats with half as many rows. The second pairs neighbours in a row, for products whose
///   depth goes across; its panel has half the width.
/// - For matrix units a matrix lies in blocks of 32 × 32, of which panels are one across, as `Blocks` says: by rows for
///   products whose depth goes across, by columns for those whose depth goes down. An element is the sum of one or two
///   parts, which enter products, and of a rest, which only c has. Rows and columns are padded to whole blocks.
/// - X enters with zeros as padding. Where a side is odd, sums over pairs read one row or column of padding; products
///   leave it zero.
struct PanelLayout {
  static constexpr int64_t kAlignment = 64;  // bytes: a cache line, and the widest vector

  int64_t rows, columns, width, row_tile;
  Precision precision;
  bool is_tiled;

  bool is_paired() const { return !is_tiled && precision == Precision::bfloat16; }
  /// Of an element in blocks.
  int parts() const { return precision == Precision::bfloat16x3 ? 2 : 1; }
  /// The rows that a product of floats computes: whole pairs, because its result may be rounded to bfloat16.
  int64_t paired_rows() const { return (rows + 1) / 2 * 2; }
  int64_t padded_rows() const { return (rows + row_tile - 1) / row_tile * row_tile; }
  int64_t panels() const { return (columns + width - 1) / width; }
  /// The floats, or words of a copy, from a panel to the next: a cache line more than the panel holds. Panels a power
  /// of two apart would meet in few cache sets.
  int64_t pitch() const { return padded_rows() * width / (is_paired() ? 2 : 1) + kAlignment / int64_t(sizeof(float)); }
  /// The size of a copy in floats or words. The pairs of columns begin this far behind the pairs of rows.
  int64_t copy_size() const { return panels() * pitch(); }
  /// The words that all blocks take for one part, in one of the two orders.
  int64_t block_words() const { return padded_rows() / Blocks::kSide * panels() * Blocks::kWords; }
  size_t bytes() const {
    if (is_tiled) return sizeof(uint32_t) * size_t((2 * parts() + 1) * block_words());
    return sizeof(float) * size_t(copy_size() * (is_paired() ? 2 : 1));
  }
  Blocks blocks(void* storage) const {
    auto* const words = static_cast<uint32_t*>(storage);
    return {.by_rows = words,
            .by_columns = words + parts() * block_words(),
            .rest = words + 2 * parts() * block_words(),
            .down = padded_rows() / Blocks::kSide,
            .across = panels()};
  }
};

}  // namespace root_optimizer::cpu
