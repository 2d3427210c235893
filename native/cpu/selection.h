#pragma once

#include <cstdint>

namespace root_optimizer {

/// Where a quantile lies among sorted values, as numpy.quantile(…, method='linear') has it.
struct Position {
  double exact;
  int64_t low, high;

  Position(int64_t size, double quantile);
};

/// What keys are counted by at first: key − floor, without its lower bits.
struct Digits {
  static constexpr uint32_t kMost = 1 << 11;

  uint32_t floor;
  int shift;
  uint32_t count;  ///< at most kMost

  /// Those of all keys.
  static constexpr Digits all() { return {0, 20, kMost}; }
  /// Those of [floor, floor + width], 64 to 128 of them: as many as are soon added up for each range.
  static Digits within(uint32_t floor, uint32_t width);

  uint32_t of(uint32_t key) const { return (key - floor) >> shift; }
};

}  // namespace root_optimizer
