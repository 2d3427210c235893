// The matrix units of AMX, emulated bit for bit, so that every machine can test their products. A multiplication adds
// to each element of c the sum of two chains from zero: fused multiply-adds over the lower halves of the words in
// order, and over the upper ones. The chains are added to each other and then to c, with denormals as zeros, as
// FlushDenormals has it; on Arm, where it does nothing, denormals stay. So it was measured on 51,200 sums of a Xeon.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "denormals.h"
#include "kernels.h"

#if defined(__x86_64__) || defined(__aarch64__)
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,popcnt")
#endif
#else
#include <arm_neon.h>
#endif

namespace root_optimizer::cpu {
namespace emulated_amx {

#if defined(__x86_64__)
#include "avx2.inc"
#else
#include "baseline.inc"
#endif

constexpr const char* kName = "amx-emulated";
constexpr int kPanelVectors = 32 / kLanes;

#include "transpose.inc"

struct alignas(64) Tile {
  uint32_t words[16][16];
};

thread_local Tile registers[8];

KERNEL_INLINE void open_tiles() {}
KERNEL_INLINE void close_tiles() {}

KERNEL_INLINE Vector of_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return broadcast(x);
}

// Not inlined, so that the many places of tiles.inc stay small.
__attribute__((noinline)) void multiply_add_tiles(Tile& c, const Tile& a, const Tile& b) {
  constexpr int kPieces = 16 / kLanes;
  typedef uint32_t Words __attribute__((vector_size(sizeof(Vector))));
  for (int row = 0; row < 16; ++row) {
    Vector even[kPieces] = {};
    Vector odd[kPieces] = {};
    for (int k = 0; k < 16; ++k) {
      const Vector low = of_bits(a.words[row][k] << 16);
      const Vector high = of_bits(a.words[row][k] & 0xffff0000u);
      for (int p = 0; p < kPieces; ++p) {
        Words pair;
        __builtin_memcpy(&pair, &b.words[k][p * kLanes], sizeof pair);
        even[p] = multiply_add(low, (Vector)(pair << 16), even[p]);
        odd[p] = multiply_add(high, (Vector)(pair & 0xffff0000u), odd[p]);
      }
    }
    for (int p = 0; p < kPieces; ++p) {
      Vector sum;
      __builtin_memcpy(&sum, &c.words[row][p * kLanes], sizeof sum);
      sum += even[p] + odd[p];
      __builtin_memcpy(&c.words[row][p * kLanes], &sum, sizeof sum);
    }
  }
}

#define SYNC_TILES() static_cast<void>(0)
#define TILE_ZERO(t) \
  registers[t] = Tile {}
#define TILE_LOAD(t, p) __builtin_memcpy(&registers[t], p, sizeof(Tile))
#define TILE_STORE(t, p) __builtin_memcpy(p, &registers[t], sizeof(Tile))
#define TILE_MULTIPLY_ADD(c, a, b) multiply_add_tiles(registers[c], registers[a], registers[b])

#include "tiles.inc"

}  // namespace emulated_amx

const Kernels* emulated_amx_kernels() {
#if defined(__x86_64__)
  if (avx2_kernels() == nullptr) return nullptr;
#endif
  return &emulated_amx::kernels;
}

}  // namespace root_optimizer::cpu

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#else
namespace root_optimizer::cpu {
const Kernels* emulated_amx_kernels() { return nullptr; }
}  // namespace root_optimizer::cpu
#endif
