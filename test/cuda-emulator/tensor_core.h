#pragma once

namespace emulator {

/// The depth of one mma and of one wgmma.
constexpr int kProductDepth = 16;
/// Columns of b lie in panels of as many.
constexpr int kPanelColumns = 8;
constexpr int kMaxRows = 64;

/// d += a · b as tensor cores add it. `a` has up to kMaxRows rows of kProductDepth elements. `b` has kProductDepth rows
/// of kPanelColumns elements in every panel, and so has `d`, as many rows as `a`. All elements of `a` and `b` are ones
/// of a 16-bit format.
///
/// Products are exact. Tensor cores add a block of them and the sum so far at once: every addend is aligned to the
/// largest exponent of the block and cut off below the last bit that is kept, and so is the result as a float32.
/// EMULATOR_SUMS=rounded adds the products one after another instead and rounds each sum to nearest.
void accumulate(float (*d)[kPanelColumns], const float (*a)[kProductDepth], int rows, const float (*b)[kPanelColumns],
                int panels);

}  // namespace emulator
