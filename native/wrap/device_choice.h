#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "../devices.h"
#include "readers.h"

namespace root_optimizer::wrap {

/// The N of 'cuda:N', or −1.
int cuda_index(const std::string& device);

/// The arguments `device` and `threads`, read. The backend is made later, because that takes a while on a GPU.
struct DeviceChoice {
  int cuda = -1;  ///< −1: the CPU
  int threads = 0;
  Precision precision = Precision::float32;

  DeviceChoice(const Napi::Value& device, const Napi::Value& threads, Precision precision);

  bool is_cpu() const { return cuda < 0; }
  Arithmetic arithmetic() const { return is_cpu() ? cpu_arithmetic(precision) : cuda_arithmetic(precision); }
  std::unique_ptr<Backend> make() const {
    return is_cpu() ? make_cpu_backend(threads, precision) : make_cuda_backend(cuda, precision);
  }
};

}  // namespace root_optimizer::wrap
