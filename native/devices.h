#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"

namespace root_optimizer {

struct CpuReport {
  std::string description;
  const char* instruction_set = nullptr;
  int physical_cores = 0;
  // Whether it multiplies these precisions besides float32.
  bool bfloat16 = false;
  bool bfloat16x3 = false;
};

struct CudaDevice {
  std::string name;
  std::string description;
  double memory_bytes = 0;
};

struct CudaReport {
  std::vector<CudaDevice> devices;
  std::string reason;  ///< why there is none; empty if there is one
};

CpuReport cpu_report();
/// `threads` 0: the physical cores. Throws ERR_INVALID_ARGUMENT for a precision that the processor does not multiply.
std::unique_ptr<Backend> make_cpu_backend(int threads, Arithmetic arithmetic);
Arithmetic cpu_arithmetic(Precision precision);

CudaReport cuda_report();
/// Why a device of the report cannot be used at this moment, for example because its memory is taken; empty if it can.
/// Creates the process's context on the device, which takes memory itself.
std::string cuda_obstacle(int index);
/// Throws ERR_DEVICE_UNAVAILABLE with the reason.
std::unique_ptr<Backend> make_cuda_backend(int index, Arithmetic arithmetic);
/// Only float16 is compensated. In bfloat16 X's first part alone is so far from X that iterations can diverge
/// (docs/notes/2026-11-26-compensated.md).
inline Arithmetic cuda_arithmetic(Precision precision, bool compensated) {
  return {.matrix = precision, .gram_square = precision, .compensated = compensated && precision == Precision::float16};
}

/// Measures the FLOP/s of one core that multiplies and adds in registers alone, for benchmarks. Takes some tenths of a
/// second. Throws ERR_INVALID_ARGUMENT as `make_cpu_backend` does.
double cpu_peak(Precision precision);

}  // namespace root_optimizer
