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

/// The kernels that a process uses.
struct InstructionSets {
  const char* name;
  const Kernels* vectors;          ///< for float32, and for bfloat16 without matrix units
  const Kernels* tiles = nullptr;  ///< for bfloat16 and bfloat16x3 on matrix units; null if there are none

  /// Null if there are none for that precision.
  const Kernels* kernels_for(Precision precision) const {
    switch (precision) {
      case Precision::float32: return vectors;
      case Precision::bfloat16: return tiles != nullptr ? tiles : vectors->pairs != nullptr ? vectors : nullptr;
      case Precision::bfloat16x3: return tiles;
      case Precision::float16: return nullptr;
    }
    return nullptr;
  }
};

/// The widest sets that this processor runs, or those that ROOT_OPTIMIZER_INSTRUCTION_SET names. Throws
/// ERR_INVALID_ARGUMENT if the processor cannot run the latter. Emulated matrix units are chosen by name alone.
InstructionSets chosen_sets();

}  // namespace root_optimizer::cpu
