#pragma once

// Searches for order statistics, and what they find.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

/// The blocks of a launch that work on an entry.
struct BlockRange {
  unsigned first;
  unsigned count;
};

/// Values among whose magnitudes a quantile is to be found: U of a matrix, or a gradient as it stands.
struct Search {
  const float* momentum;   ///< M; G itself, if that is searched
  const float* gradient;   ///< null: the values are those of `momentum`
  const float* mu;         ///< read only if there is a gradient
  bool nesterov;           ///< likewise
  const CheckNote* note;   ///< of how the gradient is clipped; null: it is not
  const double* quantile;  ///< null: nothing is clipped, and the scan adds up all squares
  const double* scale;
  const double* last;  ///< the threshold of the last step; null: all values are searched
  uint32_t* flag;      ///< raised if a value is not finite
  int64_t size;
  uint32_t* candidates = nullptr;     ///< the keys inside the bracket
  int64_t room = 0;                   ///< for so many of them
  BlockRange scan = {}, passes = {};  ///< where sums of the blocks of the scan and of other passes lie
};

/// What passes know of a search so far. Zero at first.
struct Selection {
  unsigned long long
      inside;  ///< the keys inside the bracket; more than there is room for: not all of them were put aside
  unsigned long long below;         ///< the keys below the bracket
  unsigned long long up_to;         ///< of the keys that are searched, those up to the lower statistic
  unsigned long long squares_low;   ///< the sum of the squares of these, if candidates are searched: in units of
  unsigned long long squares_high;  ///< the squared last place of the bracket's floor, and in 2^32 of these
  int64_t rank[3];     ///< at each digit: the rank of the lower statistic among the keys of the same prefix
  uint32_t prefix[3];  ///< and the digits above
  uint32_t low;        ///< the lower statistic's key
  uint32_t next;       ///< the complement of the next larger key
  bool tie;            ///< whether the upper statistic has the same key
  bool near_last;      ///< whether candidates were searched
};

/// The scratch of the searches of a launch, but for candidates.
struct Workspace {
  Selection* selections;
  unsigned long long* counts;  ///< for each search and pass, kMostDigits
  double* below;               ///< for each block of the scan, the sum of the squares below the bracket
  double* squares;             ///< for each block of another pass, a sum of squares
};

/// Searches that have been made, in the order in which they were asked for.
struct Selected {
  const Search* searches;
  const Share* shares;  ///< of the passes after the scan, which leave out searches without a quantile
  unsigned blocks;      ///< of these passes
  Workspace work;
};

/// The last place of a bracket's floor.
__device__ inline double unit_of(uint32_t floor) { return scalbn(1.0, int(max(floor >> 23, 1u)) - 150); }

__device__ inline double quantile_of(const Selection& selection, int64_t size, double quantile) {
  const uint32_t high = selection.tie ? selection.low : ~selection.next;
  return Position(size, quantile).between(magnitude_of(selection.low), magnitude_of(high));
}

}  // namespace root_optimizer::cuda
