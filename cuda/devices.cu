// Finds out which devices there are, and why there are not more.

#include <algorithm>
#include <string>

#include "../native/devices.h"
#include "../native/error.h"
#include "handles.h"
#include "launch.cuh"

namespace root_optimizer {

namespace cuda {

// The kernels use mma.sync with bfloat16 and cp.async.
constexpr int kOldestMajor = 8;

// Reading its attributes fails unless the driver can load what this build has for a device: code, or PTX that the
// driver understands.
__global__ void nothing() {}

// Older drivers cannot load a kernel whose first launch is captured.
constexpr int kOldestDriver = 12030;

// The least free memory of a usable device. With less an optimizer fails sooner or later; the CPU does not.
constexpr size_t kLeastFree = size_t(64) << 20;

static std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

static std::string capability(const cudaDeviceProp& properties) {
  return std::to_string(properties.major) + "." + std::to_string(properties.minor);
}

static std::string name_of(cudaError_t status) { return cudaGetErrorName(status); }

// Why this build cannot use the driver; empty if it can.
static std::string driver_obstacle() {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "no NVIDIA driver is installed";
  const int needed = std::max(runtime / 1000 * 1000, kOldestDriver);
  if (driver < needed) {
    return "the NVIDIA driver is too old: it supports CUDA " + version_text(driver) + ", this build needs " +
           version_text(needed);
  }
  return {};
}

static std::string device_obstacle(const cudaDeviceProp& properties) {
  if (properties.major < kOldestMajor) {
    return std::string(properties.name) + " is too old: it has compute capability " + capability(properties) +
           ", this build needs 8.0";
  }
  if (!properties.memoryPoolsSupported) return std::string(properties.name) + " has no memory pools";
  return {};
}

static CudaReport find_devices() {
  const std::string driver = driver_obstacle();
  if (!driver.empty()) return {.devices = {}, .reason = driver};
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    return {.devices = {}, .reason = "there is no NVIDIA GPU"};
  if (status != cudaSuccess) return {.devices = {}, .reason = "cudaGetDeviceCount failed: " + name_of(status)};

  CudaReport report;
  std::string obstacles;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    const cudaError_t found = cudaGetDeviceProperties(&properties, index);
    cudaGetLastError();
    const std::string obstacle =
        found == cudaSuccess ? device_obstacle(properties) : "cudaGetDeviceProperties failed: " + name_of(found);
    const std::string name = "cuda:" + std::to_string(index);
    if (obstacle.empty()) {
      const std::string description = std::string(properties.name) + ", compute capability " + capability(properties);
      report.devices.push_back(
          {.name = name, .description = description, .memory_bytes = double(properties.totalGlobalMem)});
    } else {
      obstacles += (obstacles.empty() ? "" : "; ") + name + ": " + obstacle;
    }
  }
  if (report.devices.empty()) report.reason = obstacles;
  return report;
}

}  // namespace cuda

// Devices don't come and go while a process runs.
CudaReport cuda_report() {
  static const CudaReport report = cuda::find_devices();
  return report;
}

std::string cuda_obstacle(int index) {
  const std::string name = "cuda:" + std::to_string(index);
  const CudaReport report = cuda_report();
  bool known = false;
  for (const CudaDevice& device : report.devices) known |= device.name == name;
  if (!known) return report.reason.empty() ? "there is no usable " + name : report.reason;
  try {
    const cuda::OnDevice scope(index);
    size_t free = 0;
    size_t total = 0;
    cuda::require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    if (free < cuda::kLeastFree) {
      return "its memory is taken: " + std::to_string(free >> 20) + " MiB are free of " + std::to_string(total >> 20);
    }
    cudaFuncAttributes attributes;
    cuda::require(cudaFuncGetAttributes(&attributes, cuda::nothing), "loading kernels: cudaFuncGetAttributes");
    return {};
  } catch (const Error& error) {
    const bool full = std::string(error.code()) == "ERR_OUT_OF_MEMORY";
    return full ? std::string("its memory is taken: ") + error.what() : error.what();
  }
}

}  // namespace root_optimizer
