// Runs the products of kernels_amx.cpp and of kernels_amx_emulated.cpp on random blocks and compares their bits. Where
// the processor has no matrix units, each of their instructions is an illegal one. A handler then reads it, does what it
// says to tile registers in memory, and goes on behind it.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#if !defined(__x86_64__) || !defined(__linux__)
int main() { std::puts("skipped: not Linux on x86-64"); }
#else

#include "../../native/cpu/kernels_amx.cpp"
#include "../../native/cpu/kernels_amx_emulated.cpp"

#include <signal.h>
#include <ucontext.h>

using namespace root_optimizer::cpu;

// Stand-ins for the sets that the processor has to have besides.
namespace root_optimizer::cpu {
static const Kernels any{};
const Kernels* avx512_kernels() {
  const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return supported ? &any : nullptr;
}
const Kernels* avx2_kernels() { return __builtin_cpu_supports("avx2") ? &any : nullptr; }
}  // namespace root_optimizer::cpu

namespace {

struct Registers {
  uint32_t tiles[8][16][16];
  bool open = false;
} registers;

int64_t trapped = 0;

[[noreturn]] void give_up(const char* why) {
  std::printf("%s\n", why);
  std::_Exit(1);
}

uint64_t general(const ucontext_t& context, int number) {
  static const int places[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return uint64_t(context.uc_mcontext.gregs[places[number]]);
}

// One instruction of the units: C4, then VEX with opcode map 2, the opcode, ModRM, and for memory what follows it.
void handle(int, siginfo_t*, void* pointer) {
  auto& context = *static_cast<ucontext_t*>(pointer);
  auto* at = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) give_up("an illegal instruction of another kind");
  const int index_high = at[1] & 0x40 ? 0 : 8;
  const int base_high = at[1] & 0x20 ? 0 : 8;
  const int third = ~at[2] >> 3 & 15;
  const int prefix = at[2] & 3;  // 0: none, 1: 66, 2: F3, 3: F2
  const uint8_t opcode = at[3];
  const int mode = at[4] >> 6;
  const int reg = at[4] >> 3 & 7;
  const int rm = at[4] & 7;
  at += 5;
  uint64_t address = 0;
  uint64_t stride = 0;
  if (mode != 3) {
    int base = rm + base_high;
    if (rm == 4) {
      const uint8_t sib = *at++;
      base = (sib & 7) + base_high;
      const int index = (sib >> 3 & 7) + index_high;
      stride = index == 4 ? 0 : general(context, index) << (sib >> 6);
    }
    if (mode == 0 && (base & 7) == 5) {
      int32_t offset;
      std::memcpy(&offset, at, sizeof offset);
      at += 4;
      if (rm != 5) give_up("an address without a base");
      address = uint64_t(int64_t(offset)) + uint64_t(reinterpret_cast<uintptr_t>(at));  // relative to the next one
    } else {
      address = general(context, base);
    }
    if (mode == 1) address += uint64_t(int64_t(int8_t(*at++)));
    if (mode == 2) {
      int32_t offset;
      std::memcpy(&offset, at, sizeof offset);
      address += uint64_t(int64_t(offset));
      at += 4;
    }
  }
  const auto line = [&](int row) { return reinterpret_cast<char*>(address + uint64_t(row) * stride); };
  if (opcode == 0x49 && prefix == 0 && mode != 3) {  // LDTILECFG
    const auto* config = reinterpret_cast<const uint8_t*>(address);
    for (int t = 0; t < 8; ++t) {
      if (config[16 + 2 * t] != 64 || config[17 + 2 * t] != 0 || config[48 + t] != 16) give_up("another configuration");
    }
    if (config[0] != 1) give_up("another palette");
    registers = {};
    registers.open = true;
  } else if (!registers.open) {
    give_up("an instruction before the configuration");
  } else if (opcode == 0x49 && prefix == 0) {  // TILERELEASE
    registers.open = false;
  } else if (opcode == 0x49 && prefix == 3) {  // TILEZERO
    std::memset(registers.tiles[reg], 0, sizeof registers.tiles[reg]);
  } else if (opcode == 0x4b && prefix == 3) {  // TILELOADD
    for (int row = 0; row < 16; ++row) std::memcpy(registers.tiles[reg][row], line(row), 64);
  } else if (opcode == 0x4b && prefix == 2) {  // TILESTORED
    for (int row = 0; row < 16; ++row) std::memcpy(line(row), registers.tiles[reg][row], 64);
  } else if (opcode == 0x5c && prefix == 2 && mode == 3) {  // TDPBF16PS
    if (reg == rm || reg == third || rm == third) give_up("one register twice");
    const FlushDenormals flush;
    emulated_amx::Tile c, a, b;
    std::memcpy(&c, registers.tiles[reg], sizeof c);
    std::memcpy(&a, registers.tiles[rm], sizeof a);
    std::memcpy(&b, registers.tiles[third], sizeof b);
    emulated_amx::multiply_add_tiles(c, a, b);
    std::memcpy(registers.tiles[reg], &c, sizeof c);
  } else {
    give_up("an instruction that is not known");
  }
  ++trapped;
  context.uc_mcontext.gregs[REG_RIP] = greg_t(reinterpret_cast<uintptr_t>(at));
}

// A matrix in blocks whose padding is zero.
struct Matrix {
  int64_t rows, columns;
  int parts;
  uint32_t* words;
  Blocks blocks;

  Matrix(int64_t r, int64_t c, int p) : rows(r), columns(c), parts(p) {
    const int64_t down = (r + 31) / 32, across = (c + 31) / 32;
    const int64_t part = down * across * Blocks::kWords;
    const size_t bytes = size_t((2 * p + 1) * part) * sizeof(uint32_t);
    words = static_cast<uint32_t*>(std::aligned_alloc(64, bytes));
    std::memset(words, 0, bytes);
    blocks = {.by_rows = words,
              .by_columns = words + p * part,
              .rest = words + 2 * p * part,
              .down = down,
              .across = across};
  }
  ~Matrix() { std::free(words); }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  size_t bytes() const {
    return size_t((2 * parts + 1) * blocks.down * blocks.across * Blocks::kWords) * sizeof(uint32_t);
  }
  void fill(const TileKernels& tiles, std::mt19937& next) {
    std::normal_distribution<float> normal;
    alignas(64) float square[32 * 32];
    for (int64_t i = 0; i < blocks.down; ++i) {
      for (int64_t j = 0; j < blocks.across; ++j) {
        for (int64_t k = 0; k < 32 * 32; ++k) {
          const bool inside = i * 32 + k / 32 < rows && j * 32 + k % 32 < columns;
          square[k] = inside ? normal(next) : 0;
        }
        tiles.narrow(square, blocks, i, j, parts);
      }
    }
  }
};

void multiply(const TileKernels& tiles, const Matrix& a, const Matrix& b, const Matrix& c, Matrix& out, bool symmetric,
              float beta, int64_t side) {
  const int parts = a.parts;
  auto* packed = static_cast<uint32_t*>(std::aligned_alloc(64, size_t(kTileDepth * parts * Blocks::kWords) * 4));
  auto* sums = static_cast<float*>(std::aligned_alloc(64, 256 * 256 * 4));
  for (int64_t row = 0; row < out.rows; row += side) {
    for (int64_t column = 0; column < (symmetric ? row + 1 : out.columns); column += side) {
      tiles.multiply({.a = a.blocks,
                      .b = b.blocks,
                      .c = c.blocks,
                      .out = out.blocks,
                      .rows = out.rows,
                      .columns = out.columns,
                      .depth = symmetric ? a.blocks.down : a.blocks.across,
                      .alpha = 0.75f,
                      .beta = beta,
                      .symmetric = symmetric,
                      .at = {.row0 = row,
                             .rows = std::min(side, out.rows - row),
                             .column0 = column,
                             .columns = std::min(side, out.columns - column)},
                      .packed = packed,
                      .sums = sums},
                     parts);
    }
  }
  std::free(packed);
  std::free(sums);
}

}  // namespace

int main() {
  if (avx512_kernels() == nullptr) {
    std::puts("skipped: the code for the units needs AVX-512 besides");
    return 0;
  }
  if (amx_kernels() == nullptr) {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, nullptr);
  }
  const TileKernels& units = *amx::kernels.tiles;
  const TileKernels& emulated = *emulated_amx_kernels()->tiles;
  std::mt19937 next(1);
  int products = 0;
  const int64_t shapes[][2] = {{1, 1}, {16, 16}, {17, 33}, {64, 48}, {70, 100}, {1100, 40}, {300, 290}};
  for (const auto& [rows, columns] : shapes) {
    for (int parts = 1; parts <= 2; ++parts) {
      Matrix x(rows, columns, parts);
      x.fill(emulated, next);
      Matrix gram[2] = {{columns, columns, parts}, {columns, columns, parts}};
      Matrix square[2] = {{columns, columns, parts}, {columns, columns, parts}};
      Matrix result[2] = {{rows, columns, parts}, {rows, columns, parts}};
      for (int kind = 0; kind < 2; ++kind) {
        const TileKernels& tiles = kind == 0 ? units : emulated;
        const FlushDenormals flush;
        const int64_t side = columns > 64 ? 64 : 256;
        multiply(tiles, x, x, x, gram[kind], true, 0, side);
        multiply(tiles, gram[kind], gram[kind], gram[kind], square[kind], true, -0.5f, side);
        multiply(tiles, x, square[kind], x, result[kind], false, 1.5f, side);
      }
      for (const auto& pair : {gram, square, result}) {
        if (std::memcmp(pair[0].words, pair[1].words, pair[0].bytes()) != 0) give_up("the bits differ");
        ++products;
      }
    }
  }
  if (amx_kernels() == nullptr && trapped == 0) give_up("no instruction of the units has run");
  std::printf("%d products alike\n", products);
}

#endif
