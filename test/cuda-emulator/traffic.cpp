#include "traffic.h"

#include <cstdio>
#include <unordered_map>
#include <vector>

#include "device.h"

namespace emulator {

namespace {

constexpr size_t kSector = 32;

/// The number of the last block that touched each sector of an allocation.
struct Sectors {
  size_t bytes = 0;
  std::vector<uint64_t> readers, writers;
};

struct Counts {
  uint64_t reads = 0;  ///< bytes
  uint64_t writes = 0;
};

std::unordered_map<const void*, Sectors> sectors;
Counts counts;
uint64_t block_number = 0;
bool counted = false;  // whether kernels call this file's functions at all
thread_local bool in_kernel = false;

void touch(const void* memory, size_t bytes, std::vector<uint64_t> Sectors::*last, uint64_t& total) {
  counted = true;
  const Allocation* allocation = state().memory.find(memory, bytes);
  if (!allocation || allocation->device == kHost) return;
  Sectors& own = sectors[allocation->base];
  if (own.bytes != allocation->bytes) {
    const size_t count = (allocation->bytes + kSector - 1) / kSector;
    own = {allocation->bytes, std::vector<uint64_t>(count), std::vector<uint64_t>(count)};
  }
  const size_t first = size_t(static_cast<const uint8_t*>(memory) - allocation->base);
  for (size_t sector = first / kSector; sector <= (first + bytes - 1) / kSector; ++sector) {
    uint64_t& block = (own.*last)[sector];
    if (block == block_number) continue;
    block = block_number;
    total += kSector;
  }
}

void read(const void* memory, size_t bytes) {
  if (in_kernel) touch(memory, bytes, &Sectors::readers, counts.reads);
}

void write(const void* memory, size_t bytes) {
  if (in_kernel) touch(memory, bytes, &Sectors::writers, counts.writes);
}

}  // namespace

void begin_traffic() {
  in_kernel = !state().settings.traffic.empty();
  counts = {};
}

void begin_block_traffic() { ++block_number; }

void end_traffic(const Launch& launch) {
  if (!in_kernel) return;
  in_kernel = false;
  FILE* const file = fopen(state().settings.traffic.c_str(), "a");
  if (!file) return;
  const unsigned long long blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  fprintf(file, "{\"kernel\":\"%s\",\"blocks\":%llu", launch.name, blocks);
  if (counted) {
    fprintf(file, ",\"reads\":%llu,\"writes\":%llu", static_cast<unsigned long long>(counts.reads),
            static_cast<unsigned long long>(counts.writes));
  }
  fprintf(file, "}\n");
  fclose(file);
}

void count_read(const void* memory, size_t bytes) { read(memory, bytes); }

}  // namespace emulator

// g++ calls these for every access if it compiles with -fsanitize=thread. Nothing of that sanitizer is linked.
extern "C" {

#define ACCESS(bytes)                                                                \
  void __tsan_read##bytes(void* memory) { emulator::read(memory, bytes); }           \
  void __tsan_write##bytes(void* memory) { emulator::write(memory, bytes); }         \
  void __tsan_unaligned_read##bytes(void* memory) { emulator::read(memory, bytes); } \
  void __tsan_unaligned_write##bytes(void* memory) { emulator::write(memory, bytes); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
#undef ACCESS

void __tsan_read_range(void* memory, unsigned long bytes) { emulator::read(memory, bytes); }
void __tsan_write_range(void* memory, unsigned long bytes) { emulator::write(memory, bytes); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
// Of the host's functions, which are compiled alike. The strongest order serves for every one.
unsigned char __tsan_atomic8_load(const volatile unsigned char* memory, int) {
  return __atomic_load_n(memory, __ATOMIC_SEQ_CST);
}
unsigned long __tsan_atomic64_load(const volatile unsigned long* memory, int) {
  return __atomic_load_n(memory, __ATOMIC_SEQ_CST);
}
void __tsan_atomic64_store(volatile unsigned long* memory, unsigned long value, int) {
  __atomic_store_n(memory, value, __ATOMIC_SEQ_CST);
}
}
