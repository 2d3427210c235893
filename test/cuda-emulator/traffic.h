#pragma once

#include <cstddef>
#include <cstdint>

#include <emulated_device.h>

namespace emulator {

/// What kernels move between device memory and multiprocessors. A block reads each sector of 32 bytes once and writes
/// it once, however many of its threads do: what threads of a block share, its first-level cache holds.
/// EMULATOR_TRAFFIC names a file that gets a line of JSON for every kernel. Bytes are counted where the compiler has
/// put calls of the functions in traffic.cpp into kernels (`build-emulator.mjs --traffic`).
void begin_traffic();
void begin_block_traffic();
void end_traffic(const Launch& launch);

/// Counts bytes that the emulator itself reads for a kernel.
void count_read(const void* memory, size_t bytes);

}  // namespace emulator
