// What sm_90 adds: barriers in shared memory, the copy engine, and the products of warpgroups.
// Layouts: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" and "Tensors".

#include <cuda.h>

#include <cstring>

#include "block.h"
#include "tensor_core.h"
#include "traffic.h"

namespace emulator {

namespace {

// The copy engine and wgmma swizzle by 128 bytes alike: bits 4 to 6 of an address are combined with bits 7 to 9.
size_t swizzled(size_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

constexpr int kRows = 64, kColumns = 128, kDepth = kProductDepth;

/// One operand of a product, as its descriptor says where it lies.
struct Described {
  size_t start, leading, stride;
  bool transposed;

  Described(uint64_t descriptor, bool transposed)
      : start((descriptor & 0x3fff) << 4),
        leading((descriptor >> 16 & 0x3fff) << 4),
        stride((descriptor >> 32 & 0x3fff) << 4),
        transposed(transposed) {
    if (descriptor >> 62 != 1) fault("wgmma: only the swizzle of 128 bytes is emulated");
  }

  /// Eight elements that lie side by side: along the depth or, if the operand is transposed, across it.
  void read(int outer, int depth, uint16_t (&bits)[8]) const {
    const size_t offset = transposed ? size_t(outer % 64) * 2 + size_t(outer / 64) * leading + size_t(depth % 8) * 128 +
                                           size_t(depth / 8) * stride
                                     : size_t(outer % 8) * 128 + size_t(outer / 8) * stride + size_t(depth) * 2;
    const char* address = static_cast<const char*>(dynamic_shared()) + swizzled(start + offset);
    if (!is_shared(address, sizeof bits)) fault("wgmma reads outside of shared memory");
    memcpy(bits, address, sizeof bits);
  }

  /// Calls `put(outer, depth, bits)` for every element.
  template <typename F>
  void each(int count, const F& put) const {
    uint16_t bits[8];
    const int outer_step = transposed ? 8 : 1, depth_step = transposed ? 1 : 8;
    for (int outer = 0; outer < count; outer += outer_step) {
      for (int depth = 0; depth < kDepth; depth += depth_step) {
        read(outer, depth, bits);
        for (int i = 0; i < 8; ++i) put(outer + (transposed ? i : 0), depth + (transposed ? 0 : i), bits[i]);
      }
    }
  }
};

template <float (*kValue)(uint16_t)>
void run(const GroupProduct& p) {
  constexpr int kPanels = kColumns / kPanelColumns;
  const Described describe_a(p.a, p.transposes_a), describe_b(p.b, p.transposes_b);
  static thread_local float a[kRows][kDepth], b[kPanels][kDepth][kPanelColumns], d[kPanels][kRows][kPanelColumns];
  describe_a.each(kRows, [](int i, int k, uint16_t bits) { a[i][k] = kValue(bits); });
  describe_b.each(kColumns,
                  [](int j, int k, uint16_t bits) { b[j / kPanelColumns][k][j % kPanelColumns] = kValue(bits); });
  // Every thread holds pairs of two rows of every panel.
  const auto each_pair = [&p](const auto& put) {
    for (int thread = 0; thread < kGroupThreads; ++thread) {
      const int row = thread / 32 * 16 + thread % 32 / 4, pair = thread % 4 * 2;
      for (int i = 0; i < kPanels; ++i) {
        put(&d[i][row][pair], &p.sums[size_t(thread)][i * 4]);
        put(&d[i][row + 8][pair], &p.sums[size_t(thread)][i * 4 + 2]);
      }
    }
  };
  each_pair([](float* own, const float* sums) { memcpy(own, sums, 8); });
  accumulate(d[0], a, kRows, b[0], kPanels);
  each_pair([](const float* own, float* sums) { memcpy(sums, own, 8); });
}

}  // namespace

// A thread's products wait in its warpgroup until a wait for them executes them. What they read may therefore be
// overwritten until then, as on a device.
void Block::multiply_group(float* sums, const GroupProduct& product) {
  Warpgroup& group = warpgroup();
  size_t& issued = group.issued[size_t(current_->id % kGroupThreads)];
  if (issued == group.products.size()) {
    group.products.push_back(product);
    group.products.back().group = group.committed[size_t(current_->id % kGroupThreads)];
  }
  GroupProduct& own = group.products[issued++];
  if (own.a != product.a || own.b != product.b) fail("wgmma: the threads of a warpgroup give different operands");
  own.sums[current_->id % kGroupThreads] = sums;
}

void Block::commit_group() { ++warpgroup().committed[size_t(current_->id % kGroupThreads)]; }

void Block::wait_group(int pending) {
  Warpgroup& group = warpgroup();
  if (++group.waiting < kGroupThreads) {
    group.waiters.push_back(current_->id);
    suspend();
    return;
  }
  group.waiting = 0;
  const int committed = group.committed[0];
  size_t done = 0;
  while (done < group.products.size() && group.products[done].group < committed - pending) {
    const GroupProduct& product = group.products[done++];
    product.bfloat16 ? emulator::run<bfloat16_value>(product) : emulator::run<half_value>(product);
  }
  group.products.erase(group.products.begin(), group.products.begin() + ptrdiff_t(done));
  for (size_t& issued : group.issued) issued -= done;
  for (const int id : group.waiters) make_ready(id);
  group.waiters.clear();
}

void Block::init_phase(uint64_t* barrier, int count) {
  phases_[barrier] = {.count = count, .missing = count, .bytes = 0, .number = 0, .waiters = {}};
}

Block::PhaseBarrier& Block::phase(uint64_t* barrier) {
  const auto found = phases_.find(barrier);
  if (found == phases_.end()) fail("an mbarrier that has not been initialised");
  return found->second;
}

void Block::arrive(uint64_t* barrier, int bytes) {
  PhaseBarrier& own = phase(barrier);
  own.bytes += bytes;
  if (own.missing == 0) fail("more threads arrive at an mbarrier than it counts");
  --own.missing;
  advance(own);
}

void Block::advance(PhaseBarrier& own) {
  if (own.missing > 0 || own.bytes != 0) return;
  ++own.number;
  own.missing = own.count;
  for (const int id : own.waiters) make_ready(id);
  own.waiters.clear();
}

void Block::wait_phase(uint64_t* barrier, int parity) {
  PhaseBarrier& own = phase(barrier);
  while (own.number % 2 == parity) {
    own.waiters.push_back(current_->id);
    suspend();
  }
}

// The box may land at any time from now on, so nobody may read what was there.
void Block::copy_box(void* to, const CUtensorMap& map, int column, int row, int matrix, uint64_t* barrier) {
  const size_t bytes = size_t(map.box[0]) * size_t(map.box[1]) * 2;
  if (reinterpret_cast<uintptr_t>(to) % 1024 != 0) fail("a swizzled box at an address that is no multiple of 1024");
  if (!shared_.holds(to, bytes)) fail("a box outside of shared memory");
  phase(barrier);
  memset(to, kPoison, bytes);
  boxes_.push_back({static_cast<char*>(to), map, column, row, matrix, barrier});
}

bool Block::land_box() {
  if (boxes_.empty()) return false;
  std::swap(boxes_[random_->below(boxes_.size())], boxes_.back());
  const Box box = boxes_.back();
  boxes_.pop_back();
  const auto& [to, map, column, row, matrix, barrier] = box;
  for (int i = 0; i < map.box[1]; ++i) {
    for (int j = 0; j < map.box[0]; ++j) {
      const bool inside = matrix >= 0 && matrix < map.sizes[2] && row + i >= 0 && row + i < map.sizes[1] &&
                          column + j >= 0 && column + j < map.sizes[0];
      uint16_t bits = 0;
      if (inside) {
        const char* from = map.data + matrix * map.strides[2] + (row + i) * map.strides[1] + (column + j) * 2;
        if (!state().memory.is_readable(from, 2)) {
          error = cudaErrorIllegalAddress;
          message = "the copy engine reads outside of device memory";
          return true;
        }
        count_read(from, 2);
        memcpy(&bits, from, 2);
      }
      memcpy(to + swizzled(size_t(i) * 128 + size_t(j) * 2), &bits, 2);
    }
  }
  PhaseBarrier& own = phases_.at(barrier);
  own.bytes -= map.box[0] * map.box[1] * 2;
  advance(own);
  return true;
}

void Block::named_barrier(int number, int threads) {
  std::vector<int>& waiters = named_[size_t(number)];
  if (int(waiters.size()) + 1 < threads) {
    waiters.push_back(current_->id);
    suspend();
    return;
  }
  for (const int id : waiters) make_ready(id);
  waiters.clear();
}

void named_barrier(int number, int threads) { block->named_barrier(number, threads); }
void init_barrier(uint64_t* barrier, int count) { block->init_phase(barrier, count); }
void arrive_at_barrier(uint64_t* barrier, int bytes) { block->arrive(barrier, bytes); }
void wait_barrier(uint64_t* barrier, int parity) { block->wait_phase(barrier, parity); }
void copy_box(void* to, const CUtensorMap& map, int column, int row, int matrix, uint64_t* barrier) {
  block->copy_box(to, map, column, row, matrix, barrier);
}
void multiply_warpgroup(float* sums, uint64_t a, uint64_t b, bool transposes_a, bool transposes_b, bool bfloat16) {
  block->multiply_group(sums, {.a = a,
                               .b = b,
                               .transposes_a = transposes_a,
                               .transposes_b = transposes_b,
                               .bfloat16 = bfloat16,
                               .group = 0,
                               .sums = {}});
}
void commit_products() { block->commit_group(); }
void wait_products(int pending) { block->wait_group(pending); }

uint64_t describe_swizzled(const void* shared, int leading_bytes, int stride_bytes) {
  const size_t offset = size_t(static_cast<const char*>(shared) - static_cast<const char*>(dynamic_shared()));
  return uint64_t(1) << 62 | uint64_t(stride_bytes >> 4) << 32 | uint64_t(leading_bytes >> 4) << 16 | offset >> 4;
}

}  // namespace emulator

extern "C" CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                                           const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                           const cuuint32_t* steps, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                           CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  if (type != CU_TENSOR_MAP_DATA_TYPE_UINT16 || rank != 3 || swizzle != CU_TENSOR_MAP_SWIZZLE_128B ||
      reinterpret_cast<uintptr_t>(data) % 16 != 0 || box[0] * 2 != 128 || box[1] > 256 || box[2] != 1) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *map = {};
  map->data = static_cast<const char*>(data);
  for (int i = 0; i < 3; ++i) {
    if (sizes[i] == 0 || sizes[i] > uint64_t(1) << 32 || steps[i] != 1) return CUDA_ERROR_INVALID_VALUE;
    map->sizes[i] = int64_t(sizes[i]);
    map->box[i] = int(box[i]);
    if (i == 0) continue;
    if (strides[i - 1] % 16 != 0 || strides[i - 1] >= uint64_t(1) << 40) return CUDA_ERROR_INVALID_VALUE;
    map->strides[i] = int64_t(strides[i - 1]);
  }
  return CUDA_SUCCESS;
}
