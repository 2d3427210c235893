#pragma once

#include <cuda.h>

#include "gemm.cuh"

namespace root_optimizer::cuda {

/// What the copy engine has to know about a batch's matrices.
using TensorMap = CUtensorMap;

/// Describes matrices of 16-bit elements, in boxes of 64 × 64 elements that the copy engine swizzles by 128 bytes.
TensorMap tensor_map(const StoredMatrices& matrices, int64_t count);

}  // namespace root_optimizer::cuda
