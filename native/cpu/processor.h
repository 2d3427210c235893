#pragma once

#include <cstdint>
#include <string>

#include "kernels.h"

namespace root_optimizer::cpu {

std::string processor_name();

/// Physical cores that this process may use, affinity and container quota considered: with two threads to a core,
/// products gain nothing from the second.
int physical_cores();

/// Bytes of a core's second-level cache; 256 KiB where the system does not tell.
int64_t second_level_cache();

/// The widest kernels that this processor runs, or those that ROOT_OPTIMIZER_INSTRUCTION_SET names
/// (ERR_INVALID_ARGUMENT where it cannot run them).
const Kernels& chosen_kernels();

}  // namespace root_optimizer::cpu
