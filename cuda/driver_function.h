#pragma once

#include <cuda_runtime.h>

#include <atomic>

namespace root_optimizer::cuda {

/// A function of the driver, or null without a driver. No libcuda is linked, so that the addon loads without one.
template <typename F>
F* driver_function(const char* name) {
  static std::atomic<F*> known{nullptr};
  if (F* const before = known) return before;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &found);
#endif
  if (status != cudaSuccess) cudaGetLastError();
  if (status == cudaSuccess && found == cudaDriverEntryPointSuccess) known = reinterpret_cast<F*>(function);
  return known;
}

}  // namespace root_optimizer::cuda
