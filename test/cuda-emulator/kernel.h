#pragma once

#include <emulated_device.h>

#include "device.h"

namespace emulator {

/// Runs all blocks of a grid. A fault ends it and becomes the device's sticky error.
void run_kernel(Device& device, const Launch& launch);

/// Whether the bytes lie in the shared memory of the running block.
bool is_shared(const void* memory, size_t bytes);

/// A copy that has been asked for and has not landed.
struct PendingCopy {
  void* shared;
  const void* global;
  bool valid;
  int group;
};

struct Copies {
  std::vector<PendingCopy> pending;
  int group = 0;  ///< the group of the next copy
};

Copies& copies();

}  // namespace emulator
