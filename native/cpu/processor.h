#pragma once

#include <cstdint>
#include <string>

#include "kernels.h"

namespace root_optimizer::cpu {

std::string processor_name();

/// The physical cores that this process may use, given its affinity and its container's quota. Products gain nothing
/// from a core's second thread.
int physical_cores();

/// The bytes of a core's second-level cache; 256 KiB if the system does not tell.
int64_t second_level_cache();

/// The widest kernels that this processor runs, or those that ROOT_OPTIMIZER_INSTRUCTION_SET names. Throws
/// ERR_INVALID_ARGUMENT if the processor cannot run the latter.
const Kernels& chosen_kernels();

}  // namespace root_optimizer::cpu
