#pragma once

#include <cstdint>

namespace root_optimizer::cpu {

/// The digits by which keys are counted at first: a key's digit is key − floor without its lower bits.
struct Digits {
  static constexpr uint32_t kMost = 1 << 11;

  uint32_t floor;
  int shift;
  uint32_t count;  ///< at most kMost

  /// The digits of all keys.
  static constexpr Digits all() { return {.floor = 0, .shift = 20, .count = kMost}; }
  /// The digits of keys in [floor, floor + width]. There are 64 to 128, so few that adding up each range's counts
  /// takes little time.
  static Digits within(uint32_t floor, uint32_t width);

  uint32_t of(uint32_t key) const { return (key - floor) >> shift; }
};

}  // namespace root_optimizer::cpu
