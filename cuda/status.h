#pragma once

#include <cuda_runtime.h>

namespace root_optimizer::cuda {

/// Throws ERR_OUT_OF_MEMORY or ERR_CUDA with the call and the error's name, unless it succeeded.
void require(cudaError_t status, const char* call);

}  // namespace root_optimizer::cuda
