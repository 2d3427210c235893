#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>

struct CUmemPoolHandle_st {
  int device;
  uint64_t limit = 0;  ///< 0: the device's memory
  uint64_t release_threshold = 0;
  uint64_t reserved = 0, reserved_high = 0;
  uint64_t used = 0, used_high = 0;
};

namespace emulator {

/// All ones is a NaN in every floating-point format, and an index far outside of everything.
constexpr uint8_t kPoison = 0xff;
/// Another NaN in every format, so that a poisoned store is seen too.
constexpr uint16_t kCanary = 0xffc1;
constexpr size_t kGuardBytes = 128;

void write_canary(void* memory, size_t bytes);
/// The first byte that is not canary any more, or -1.
ptrdiff_t damage(const void* memory, size_t bytes);

constexpr int kHost = -1;

struct Allocation {
  uint8_t* base;
  size_t bytes;
  size_t padding;  ///< canary after the last byte
  int device;      ///< kHost: pinned memory
  CUmemPoolHandle_st* pool;
  std::map<uint8_t*, size_t> regions;  ///< poisoned parts, each followed by a guard zone
  bool ends = false;                   ///< cudaFreeAsync is queued
};

/// Returns the pool's unused memory to its device, until the pool keeps no more than `keep`.
void trim(CUmemPoolHandle_st& pool, uint64_t keep);
/// Part of every synchronisation: pools fall back to their release thresholds.
void settle_pools();

/// Device and pinned memory. Knows who has it, and whether somebody wrote where nobody should.
class Memory {
 public:
  Allocation* allocate(int device, CUmemPoolHandle_st* pool, size_t bytes);
  /// The allocation's bytes stay poisoned for a while, so that a late access shows. Returns what was damaged, in words.
  std::string release(Allocation* allocation);
  /// The allocation that holds the whole range.
  Allocation* find(const void* memory, size_t bytes = 1);
  /// Whether a kernel may read the bytes. If the allocation has poisoned regions, the bytes must lie inside one.
  bool is_readable(const void* memory, size_t bytes);
  void poison(Allocation& allocation, uint8_t* memory, size_t bytes);
  /// What is damaged on a device, in words; empty if nothing is.
  std::string inspect(int device) const;
  std::string inspect_freed(int device) const;
  void clear();

 private:
  std::map<const uint8_t*, Allocation> allocations_;
  std::deque<Allocation> freed_;
  size_t freed_bytes_ = 0;
  Allocation* recent_ = nullptr;
};

}  // namespace emulator
