#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "settings.h"

namespace root_optimizer {

/// Orthogonalises each matrix of `input` into the same place of `output`. Both may be one array. Throws ERR_NON_FINITE.
void orthogonalize(Backend& backend, const float* input, float* output, const std::vector<MatrixLayout>& matrices,
                   const std::vector<std::vector<Coefficients>>& coefficients);

/// Returns ε. Throws ERR_NON_FINITE.
double soft_threshold(Backend& backend, const float* input, float* base, float* outliers, int64_t size,
                      Threshold threshold);

/// Whether no value is infinite or NaN, and with `non_negative` none below zero.
bool are_finite(const float* values, size_t count, bool non_negative);

}  // namespace root_optimizer
