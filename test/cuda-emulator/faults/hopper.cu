// What sm_90 adds: barriers in shared memory, the copy engine, and the products of warpgroups.

#include <stdexcept>

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

constexpr int kThreads = 128;
constexpr int kSide = 64;  // of a box
constexpr int kBoxElements = kSide * kSide;
constexpr int kBoxBytes = kBoxElements * 2;

/// A map of matrices of halves in boxes of 64 × 64.
CUtensorMap map_of(__half* data, uint64_t rows, uint64_t columns, uint64_t count) {
  const cuuint64_t sizes[] = {columns, rows, count};
  const cuuint64_t strides[] = {columns * 2, rows * columns * 2};
  const cuuint32_t box[] = {kSide, kSide, 1};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  if (cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, data, sizes, strides, box, steps,
                             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS) {
    throw std::runtime_error("cuTensorMapEncodeTiled");
  }
  return map;
}

/// Small whole numbers, whose products and sums are exact.
std::vector<__half> halves(int size) {
  std::vector<__half> values;
  for (int i = 0; i < size; ++i) values.push_back(float(i * 37 % 19 - 9));
  return values;
}

/// Where an element of a swizzled box lies.
__host__ __device__ int place_in_box(int row, int column) {
  return row * kSide + ((column / 8) ^ (row % 8)) * 8 + column % 8;
}

// Barriers

enum class Arrival { all, one_missing, no_barrier, none };

// Half of the threads write, and the other half reads what they have written.
template <Arrival kArrival>
__global__ void hand_over(int* values) {
  SHARED_ARRAY(uint64_t, written, 1);
  SHARED_ARRAY(int, shared, kThreads / 2);
  const int thread = int(threadIdx.x), half = kThreads / 2;
  if (thread == 0 && kArrival != Arrival::no_barrier) init_barrier(written, half);
  __syncthreads();
  if (thread < half) {
    shared[thread] = values[thread];
    if (kArrival != Arrival::one_missing || thread != 5) arrive_at_barrier(written);
  } else {
    if (kArrival != Arrival::none) wait_barrier(written, 0);
    values[thread] = shared[thread - half];
  }
}

template <Arrival kBroken>
bool hands_over(bool broken) {
  int* values = device_copy(sequence<int>(kThreads));
  launch("hand_over", broken ? hand_over<kBroken> : hand_over<Arrival::all>, 1, kThreads, 0, nullptr, values);
  const std::vector<int> results = host_copy(values, kThreads);
  for (int i = 0; i < kThreads; ++i) {
    if (results[size_t(i)] != i % (kThreads / 2)) return false;
  }
  return true;
}

template <bool kBroken>
__global__ void meet_by_number(int* values) {
  SHARED_ARRAY(int, shared, kThreads / 2);
  const int thread = int(threadIdx.x), half = kThreads / 2;
  if (thread >= half) return;
  shared[thread] = values[thread];
  if (!kBroken || thread < 40) named_barrier<kThreads / 2>(1);
  values[thread] = shared[half - 1 - thread];
}

bool meets_by_number(bool broken) {
  int* values = device_copy(sequence<int>(kThreads));
  launch("meet_by_number", broken ? meet_by_number<true> : meet_by_number<false>, 1, kThreads, 0, nullptr, values);
  const std::vector<int> results = host_copy(values, kThreads / 2);
  for (int i = 0; i < kThreads / 2; ++i) {
    if (results[size_t(i)] != kThreads / 2 - 1 - i) return false;
  }
  return true;
}

// Boxes

enum class Boxes {
  right,
  too_few_bytes,
  too_many_bytes,
  no_wait,
  misaligned,
  outside,
  refilled_too_early,
  wrong_parity
};

// Sums boxes through a ring of two stages, each thread half a row of every box. The boxes stick out of the matrices.
template <Boxes kBoxes>
__global__ void sum_boxes(const CUtensorMap map, float* sums, int count) {
  constexpr int kStages = 2;
  SHARED_ARRAY(uint64_t, full, kStages);
  SHARED_ARRAY(uint64_t, empty, kStages);
  char* ring = dynamic_shared<char>() + (kBoxes == Boxes::misaligned ? 128 : 0);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&full[stage], 1);
      init_barrier(&empty[stage], kThreads);
    }
    publish_barriers();
  }
  __syncthreads();
  const int thread = int(threadIdx.x);
  if (thread >= kThreads) {
    if (thread > kThreads) return;
    constexpr int kBytes = kBoxBytes + (kBoxes == Boxes::too_few_bytes    ? -128
                                        : kBoxes == Boxes::too_many_bytes ? 128
                                                                          : 0);
    for (int i = 0; i < count; ++i) {
      const int stage = i % kStages;
      if (i >= kStages && kBoxes != Boxes::refilled_too_early) wait_barrier(&empty[stage], (i / kStages - 1) % 2);
      expect_bytes(&full[stage], kBytes);
      copy_box(ring + stage * kBoxBytes, map, 0, 0, i, &full[stage]);
    }
    return;
  }
  float sum = 0;
  for (int i = 0; i < count; ++i) {
    const int stage = i % kStages;
    if (kBoxes == Boxes::wrong_parity) {
      wait_barrier(&full[stage], (i / kStages + 1) % 2);
    } else if (kBoxes != Boxes::no_wait) {
      wait_barrier(&full[stage], i / kStages % 2);
    }
    const __half* box = reinterpret_cast<const __half*>(ring + stage * kBoxBytes);
    for (int j = 0; j < kSide / 2; ++j) {
      const int column = thread % 2 * (kSide / 2) + j, row = thread / 2;
      sum += float(box[place_in_box(row, column)]) * float(column + 1);
    }
    arrive_at_barrier(&empty[stage]);
  }
  sums[thread] = sum;
}

template <Boxes kBroken>
bool sums_boxes(bool broken) {
  constexpr int kRows = 50, kColumns = 56;
  constexpr int kCount = kBroken == Boxes::no_wait ? 2 : 5;  // two do not wait for room in the ring
  const std::vector<__half> values = halves(kRows * kColumns * kCount);
  // The map tells of more matrices than there are.
  const bool is_outside = broken && kBroken == Boxes::outside;
  __half* data = device_copy(is_outside ? halves(kRows * kColumns) : values);
  float* sums = device_array<float>(kThreads);
  const auto kernel = broken ? sum_boxes<kBroken> : sum_boxes<Boxes::right>;
  launch("sum_boxes", kernel, 1, kThreads + 32, 2 * kBoxBytes + 1024, nullptr, map_of(data, kRows, kColumns, kCount),
         sums, kCount);
  const std::vector<float> results = host_copy(sums, kThreads);
  for (int thread = 0; thread < kThreads; ++thread) {
    float expected = 0;
    for (int i = 0; i < kCount; ++i) {
      for (int j = 0; j < kSide / 2; ++j) {
        const int column = thread % 2 * (kSide / 2) + j, row = thread / 2;
        if (row >= kRows || column >= kColumns) continue;  // where the copy engine puts zeros
        expected += float(values[size_t((i * kRows + row) * kColumns + column)]) * float(column + 1);
      }
    }
    if (results[size_t(thread)] != expected) return false;
  }
  return true;
}

// Products

enum class Products { right, no_wait, not_committed, overwritten, other_operands, some_wait, wait_for_too_few };

// d = a·bᵀ or aᵀ·b of matrices with 64 elements of depth. a has 64 outer elements, b has 128.
template <typename Element, bool kTransposed, Products kProducts>
__global__ void multiply(const Element* a, const Element* b, float* d) {
  char* shared = dynamic_shared<char>();
  Element* tiles = reinterpret_cast<Element*>(shared);
  const int thread = int(threadIdx.x);
  for (int i = thread; i < kBoxElements; i += kThreads) tiles[i] = a[i];
  for (int i = thread; i < 2 * kBoxElements; i += kThreads) tiles[kBoxElements + i] = b[i];
  __syncthreads();
  float sums[64] = {};
  constexpr int kLeading = kTransposed ? kBoxBytes : 16;
  constexpr int kStep = kTransposed ? 16 * 128 : 32;
  begin_products();
  for (int step = 0; step < kSide / 16; ++step) {
    const int other = kProducts == Products::other_operands && thread == 7 ? kStep : 0;
    multiply_warpgroup<kTransposed, kTransposed>(sums, describe_swizzled(shared + step * kStep + other, kLeading, 1024),
                                                 describe_swizzled(shared + kBoxBytes + step * kStep, kLeading, 1024),
                                                 Element());
    if (kProducts == Products::wait_for_too_few) commit_products();
  }
  if (kProducts != Products::not_committed && kProducts != Products::wait_for_too_few) commit_products();
  if (kProducts == Products::overwritten) tiles[thread] = Element(100.0f);
  if (kProducts == Products::wait_for_too_few) {
    wait_products<1>();
  } else if (kProducts != Products::no_wait && (kProducts != Products::some_wait || thread < 100)) {
    wait_products<0>();
  }
  settle_sums(sums);
  const int row = thread / 32 * 16 + thread % 32 / 4;
  for (int i = 0; i < 64; ++i) {
    d[(row + i / 2 % 2 * 8) * 128 + i / 4 * 8 + thread % 4 * 2 + i % 2] = sums[i];
  }
}

template <typename Element, bool kTransposed, Products kBroken>
bool multiplies_in_groups(bool broken) {
  std::vector<Element> a(kBoxElements), b(2 * kBoxElements);
  const auto value = [](int outer, int depth, int factor) { return float((outer * factor + depth * 5) % 13 - 6); };
  const auto fill = [&](std::vector<Element>& tiles, int factor) {
    for (int outer = 0; outer < int(tiles.size()) / kSide; ++outer) {
      for (int depth = 0; depth < kSide; ++depth) {
        const int place = kTransposed ? place_in_box(depth, outer % kSide) : place_in_box(outer % kSide, depth);
        tiles[size_t(outer / kSide * kBoxElements + place)] = value(outer, depth, factor);
      }
    }
  };
  fill(a, 3);
  fill(b, 7);
  float* d = device_array<float>(64 * 128);
  const auto kernel =
      broken ? multiply<Element, kTransposed, kBroken> : multiply<Element, kTransposed, Products::right>;
  launch("multiply", kernel, 1, kThreads, 3 * kBoxBytes, nullptr, device_copy(a), device_copy(b), d);
  const std::vector<float> results = host_copy(d, 64 * 128);
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 128; ++column) {
      float expected = 0;
      for (int k = 0; k < kSide; ++k) expected += value(row, k, 3) * value(column, k, 7);
      if (results[size_t(row * 128 + column)] != expected) return false;
    }
  }
  return true;
}

}  // namespace

const std::vector<Case> hopper_cases = {
    {"all arrivals at an mbarrier", true, hands_over<Arrival::one_missing>},
    {"an mbarrier that is initialised", true, hands_over<Arrival::no_barrier>},
    {"a wait for an mbarrier", true, hands_over<Arrival::none>},
    {"all threads at a named barrier", true, meets_by_number},
    {"as many bytes as a box has", true, sums_boxes<Boxes::too_few_bytes>},
    {"no more bytes than a box has", true, sums_boxes<Boxes::too_many_bytes>},
    {"a wait for a box", true, sums_boxes<Boxes::no_wait>},
    {"the phase of a box", true, sums_boxes<Boxes::wrong_parity>},
    {"boxes that are read before they are refilled", true, sums_boxes<Boxes::refilled_too_early>},
    {"aligned boxes", true, sums_boxes<Boxes::misaligned>},
    {"boxes inside of device memory", true, sums_boxes<Boxes::outside>},
    {"a wait for products", true, multiplies_in_groups<__half, false, Products::no_wait>},
    {"a wait for the last products", true, multiplies_in_groups<__nv_bfloat16, true, Products::wait_for_too_few>},
    {"products that are committed", true, multiplies_in_groups<__half, true, Products::not_committed>},
    {"operands that stay until products end", true, multiplies_in_groups<__nv_bfloat16, false, Products::overwritten>},
    {"one operand for a warpgroup", true, multiplies_in_groups<__half, false, Products::other_operands>},
    {"a wait of a whole warpgroup", true, multiplies_in_groups<__half, false, Products::some_wait>},
};
