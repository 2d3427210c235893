// The warp-wide instructions of tensor cores, and the asynchronous copies that feed them.
// Fragment layouts: PTX ISA, "Warp Level Matrix Instructions", m16n8k16 and ldmatrix.

#include <cstring>

#include "kernel.h"
#include "tensor_core.h"
#include "traffic.h"

namespace emulator {

namespace {

bool is_aligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % 16 == 0; }

struct Load {
  uint32_t* r;
  const uint16_t* row;  ///< the address of row lane % 8 of matrix lane / 8

  template <bool kTransposed>
  static void run(void* const* operands, unsigned) {
    const auto rows = [&](int matrix, int row) { return static_cast<Load*>(operands[matrix * 8 + row])->row; };
    for (int lane = 0; lane < warpSize; ++lane) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int matrix = 0; matrix < 4; ++matrix) {
        const uint32_t low = kTransposed ? rows(matrix, pair)[group] : rows(matrix, group)[pair];
        const uint32_t high = kTransposed ? rows(matrix, pair + 1)[group] : rows(matrix, group)[pair + 1];
        static_cast<Load*>(operands[lane])->r[matrix] = low | high << 16;
      }
    }
  }
};

struct Product {
  float* d;
  const uint32_t* a;
  const uint32_t* b;

  template <float (*kValue)(uint16_t)>
  static void run(void* const* operands, unsigned) {
    uint16_t bits[warpSize * 8 + 128];  // a as the lanes hold it; b by rows
    float d[16][8];
    for (int lane = 0; lane < warpSize; ++lane) {
      const Product& part = *static_cast<Product*>(operands[lane]);
      const int group = lane / 4, pair = lane % 4 * 2;
      memcpy(&bits[lane * 8], part.a, 16);
      for (int half = 0; half < 2; ++half) {
        uint16_t* b = &bits[warpSize * 8 + (8 * half + pair) * 8 + group];
        b[0] = uint16_t(part.b[half]);
        b[8] = uint16_t(part.b[half] >> 16);
        memcpy(&d[group + 8 * half][pair], &part.d[2 * half], 8);
      }
    }
    float values[warpSize * 8 + 128];
    for (int i = 0; i < warpSize * 8 + 128; ++i) values[i] = kValue(bits[i]);
    float a[16][kProductDepth], b[kProductDepth][kPanelColumns];
    for (int row = 0; row < 16; ++row) {
      // A row's four lanes hold its elements in pairs, those of the second half of the depth further on.
      for (int k = 0; k < kProductDepth; ++k)
        a[row][k] = values[row % 8 * 32 + row / 8 * 2 + k % 8 / 2 * 8 + k / 8 * 4 + k % 2];
    }
    memcpy(b, &values[warpSize * 8], sizeof b);
    accumulate(d, a, 16, b, 1);
    for (int lane = 0; lane < warpSize; ++lane) {
      float* result = static_cast<Product*>(operands[lane])->d;
      for (int half = 0; half < 2; ++half) memcpy(&result[2 * half], &d[lane / 4 + 8 * half][lane % 4 * 2], 8);
    }
  }
};

}  // namespace

void load_matrix(uint32_t (&r)[4], const void* row, bool transposed, Site site) {
  if (!is_aligned(row)) fault("ldmatrix from an address that is no multiple of 16");
  if (!is_shared(row, 16)) fault("ldmatrix from outside of shared memory");
  Load operand{r, static_cast<const uint16_t*>(row)};
  collective(kFullMask, {"ldmatrix", transposed ? Load::run<true> : Load::run<false>}, &operand, site);
}

void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bool bfloat16, Site site) {
  Product operand{d, a, b};
  collective(kFullMask, {"mma", bfloat16 ? Product::run<bfloat16_value> : Product::run<half_value>}, &operand, site);
}

void copy_async(void* shared, const void* global, bool valid) {
  if (!is_aligned(shared) || !is_aligned(global)) fault("cp.async with an address that is no multiple of 16");
  if (!is_shared(shared, 16)) fault("cp.async to outside of shared memory");
  if (valid && !state().memory.is_readable(global, 16)) fault("cp.async from outside of device memory");
  // The copy may land at any time from now on, so nobody may read what was there.
  memset(shared, kPoison, 16);
  if (valid) count_read(global, 16);
  copies().pending.push_back({shared, global, valid, copies().group});
}

void commit_copies() { ++copies().group; }

void wait_copies(int groups_left) {
  auto& [pending, group] = copies();
  size_t landed = 0;
  for (; landed < pending.size() && pending[landed].group < group - groups_left; ++landed) {
    const PendingCopy& copy = pending[landed];
    if (copy.valid) {
      memcpy(copy.shared, copy.global, 16);
    } else {
      memset(copy.shared, 0, 16);
    }
  }
  pending.erase(pending.begin(), pending.begin() + ptrdiff_t(landed));
}

}  // namespace emulator
