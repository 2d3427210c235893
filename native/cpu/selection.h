#pragma once

#include <cstdint>

namespace root_optimizer {

/// Where a quantile lies among sorted values, as numpy.quantile(…, method='linear') has it.
struct Position {
  double exact;
  int64_t low, high;

  Position(int64_t size, double quantile);
};

/// The quantile at that position, of keys that hold both order statistics around it; `skipped` smaller ones are left
/// out. In time linear in `count`, whatever the keys; reorders them.
double quantile_of(uint32_t* keys, int64_t count, int64_t skipped, const Position& position);

}  // namespace root_optimizer
