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
  Arithmetic arithmetic = {};

  DeviceChoice(const Napi::Value& device, const Napi::Value& threads, Precision precision, bool compensated);

  bool is_cpu() const { return cuda < 0; }
  std::unique_ptr<Backend> make() const {
    return is_cpu() ? make_cpu_backend(threads, arithmetic) : make_cuda_backend(cuda, arithmetic);
  }
};

}  // namespace root_optimizer::wrap
