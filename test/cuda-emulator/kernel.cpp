#include "kernel.h"

#include <cstdarg>
#include <cstdio>

#include "block.h"
#include "crashes.h"
#include "traffic.h"

namespace emulator {

uint3 thread_index, block_index;
dim3 block_dimensions, grid_dimensions;

int barrier(Vote vote, int predicate, Site site) { return block->barrier(vote, predicate, site); }
void collective(unsigned mask, const Collective& operation, void* operand, Site site) {
  block->collective(mask, operation, operand, site);
}
int lane() { return block->lane(); }
Copies& copies() { return block->thread().copies; }
bool is_shared(const void* memory, size_t bytes) { return block->shared().holds(memory, bytes); }
void* dynamic_shared() { return block->shared().dynamic(); }
void* shared_array(const void* key, const char* name, size_t bytes, size_t alignment) {
  return block->shared_array(key, name, bytes, alignment);
}

void fault(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  block->fail(text);
}

void Ballot::run(void* const* operands, unsigned mask) {
  for (int lane = 0; lane < warpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Ballot& mine = *static_cast<Ballot*>(operands[lane]);
    const auto wanted = mine.by_value ? mine.value : 1;
    mine.result = 0;
    for (int other = 0; other < warpSize; ++other) {
      if (mask >> other & 1 && static_cast<Ballot*>(operands[other])->value == wanted) mine.result |= 1u << other;
    }
  }
}

void run_kernel(Device& device, const Launch& launch) {
  block_dimensions = launch.block;
  grid_dimensions = launch.grid;
  Random& random = state().random;
  if (!block) block = new Block;
  const uint64_t count = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  // Multiplying by an odd number and adding permutes the numbers below a power of two.
  uint64_t span = 1;
  while (span < count) span *= 2;
  const uint64_t factor = random.next() | 1, shift = random.next();
  block->prepare(launch, random);
  const CrashGuard guard;
  begin_traffic();
  const auto where = [&] {
    return std::string("kernel ") + launch.name + ", block " + coordinates(block_index.x, block_index.y, block_index.z);
  };
  for (uint64_t i = 0; i < span; ++i) {
    const uint64_t id = (i * factor + shift) & (span - 1);
    if (id >= count) continue;
    block_index = {unsigned(id % launch.grid.x), unsigned(id / launch.grid.x % launch.grid.y),
                   unsigned(id / launch.grid.x / launch.grid.y)};
    begin_block_traffic();
    if (!block->run()) {
      report_fault(device, block->error, where() + ": " + block->message);
      return;
    }
  }
  end_traffic(launch);
}

}  // namespace emulator
