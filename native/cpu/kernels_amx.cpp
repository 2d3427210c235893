// Products on the matrix units of Intel's processors, AMX.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

// Pragmas rather than a compiler flag, so that neither build system needs flags for single files.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,amx-tile,amx-bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,amx-tile,amx-bf16")
#endif

namespace root_optimizer::cpu {
namespace amx {

#include "avx512.inc"

constexpr const char* kName = "amx";
constexpr int kPanelVectors = 2;

#include "transpose.inc"

// 64 bytes: palette 1, whose eight registers have up to 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

KERNEL_INLINE void open_tiles() {
  const TileConfig config;
  // GCC 12 does not know that the instruction reads memory.
  asm volatile("" : : "m"(config) : "memory");
  _tile_loadconfig(&config);
}
KERNEL_INLINE void close_tiles() { _tile_release(); }

// GCC 12 does not know that loads of tiles read memory either.
#define SYNC_TILES() asm volatile("" : : : "memory")
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, p) _tile_loadd(t, p, 64)
#define TILE_STORE(t, p) _tile_stored(t, p, 64)
#define TILE_MULTIPLY_ADD(c, a, b) _tile_dpbf16ps(c, a, b)

#include "tiles.inc"

}  // namespace amx

namespace {

// Whether the processor has the units, the system saves their registers, and this process may use them. The kernel
// refuses where a signal stack is too small for the registers.
bool may_use_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBfloat16 = 1u << 22;
  constexpr unsigned kTile = 1u << 24;
  if ((d & kBfloat16) == 0 || (d & kTile) == 0) return false;
  if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

const Kernels* amx_kernels() {
  static const bool usable = avx512_kernels() != nullptr && avx2_kernels() != nullptr && may_use_tiles();
  return usable ? &amx::kernels : nullptr;
}

}  // namespace root_optimizer::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace root_optimizer::cpu {
const Kernels* amx_kernels() { return nullptr; }
}  // namespace root_optimizer::cpu
#endif
