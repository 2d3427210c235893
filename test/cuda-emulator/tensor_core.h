#pragma once

namespace emulator {

/// The depth of one mma and of one wgmma.
constexpr int kProductDepth = 16;

/// A row of d += a · b as tensor cores add it. `a` holds kProductDepth elements, `b` as many rows of kColumns elements.
///
/// Products are exact. Tensor cores add a block of them and the sum so far at once: every addend is aligned to the
/// largest exponent of the block and cut off below the last bit that is kept, and so is the result as a float32.
/// EMULATOR_SUMS=rounded adds the products one after another instead and rounds each sum to nearest.
template <int kColumns>
void accumulate_row(float* d, const float* a, const float* b);

extern template void accumulate_row<8>(float*, const float*, const float*);
extern template void accumulate_row<128>(float*, const float*, const float*);

}  // namespace emulator
