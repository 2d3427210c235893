// ε ← scale · quantile of |U|, exactly: the two order statistics around the quantile are found by their bits, digit by
// digit from the top, in three counting passes over U; a fourth looks for the upper one where it shares too few bits
// with the lower.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer {

namespace {

// |u| as an integer: the bits of a float without its sign order as its magnitude does. 11 + 11 + 9 bits.
constexpr int kDigits = 1 << 11;
constexpr int kPasses = 3;
constexpr uint32_t kNone = 0xffffffffu;

struct Digit {
  int shift;         // of the digit
  int parent_shift;  // of what is known already
  int count;

  __host__ __device__ explicit Digit(int pass)
      : shift(pass == 0   ? 20
              : pass == 1 ? 9
                          : 0),
        parent_shift(pass == 0   ? 31
                     : pass == 1 ? 20
                                 : 9),
        count(pass == 2 ? 1 << 9 : kDigits) {}
};

/// How far the search of a matrix has come.
struct Selection {
  int64_t rank;     // of the lower statistic, among those whose top bits are `prefix`
  uint32_t prefix;  // its top bits; after the last pass its key
  uint32_t next;    // the upper statistic's key
  bool pending;     // it is the smallest above `prefix`, and not found yet
};

struct Position {
  double exact;
  int64_t low;
  int64_t high;

  __device__ Position(int64_t size, double quantile)
      : exact(double(size - 1) * quantile), low(min(int64_t(exact), size - 1)), high(min(low + 1, size - 1)) {}
};

__device__ uint32_t key_of(float u) { return __float_as_uint(u) & 0x7fffffffu; }

__global__ void count_digits(const __grid_constant__ Table<Item> items, int64_t size, bool nesterov, int pass,
                             const Selection* selections, unsigned long long* counts) {
  SHARED_ARRAY(uint32_t, local, kDigits);
  const Digit digit(pass);
  for (int d = int(threadIdx.x); d < digit.count; d += int(blockDim.x)) local[d] = 0;
  __syncthreads();
  const LookAhead look_ahead(items.entries[blockIdx.y], nesterov);
  const uint32_t prefix = pass == 0 ? 0 : selections[blockIdx.y].prefix;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad u = look_ahead.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const uint32_t key = key_of(u.v[e]);
      if (e < count && key >> digit.parent_shift == prefix) {
        atomicAdd(&local[key >> digit.shift & uint32_t(digit.count - 1)], 1u);
      }
    }
  });
  __syncthreads();
  unsigned long long* total = counts + int64_t(blockIdx.y) * kDigits;
  for (int d = int(threadIdx.x); d < digit.count; d += int(blockDim.x)) {
    if (local[d] != 0) atomicAdd(&total[d], static_cast<unsigned long long>(local[d]));
  }
}

// One block a matrix. Leaves the counts at zero for the next pass.
__global__ void choose_digit(const __grid_constant__ Table<Item> items, int64_t size, int pass, Selection* selections,
                             unsigned long long* counts) {
  SHARED_ARRAY(int64_t, sums, kPassThreads);
  const Digit digit(pass);
  unsigned long long* total = counts + int64_t(blockIdx.x) * kDigits;
  const int width = digit.count / kPassThreads;
  const int mine = int(threadIdx.x) * width;
  int64_t sum = 0;
  for (int d = mine; d < mine + width; ++d) sum += int64_t(total[d]);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    const Position position(size, items.entries[blockIdx.x].scalars->quantile);
    Selection& selection = selections[blockIdx.x];
    int64_t rank = pass == 0 ? position.low : selection.rank;
    int group = 0;
    // The bounds hold even where U changes meanwhile, as gradients that somebody still writes may.
    while (group < kPassThreads - 1 && rank >= sums[group]) rank -= sums[group++];
    int found = group * width;
    while (found < digit.count - 1 && rank >= int64_t(total[found])) rank -= int64_t(total[found++]);
    const uint32_t parent = pass == 0 ? 0 : selection.prefix << (digit.parent_shift - digit.shift);
    selection.rank = rank;
    selection.prefix = parent | uint32_t(found);
    if (pass == kPasses - 1) {
      int next = found;
      if (position.high > position.low && rank + 1 >= int64_t(total[found])) {
        do ++next;
        while (next < digit.count && total[next] == 0);
      }
      selection.pending = next == digit.count;
      selection.next = selection.pending ? kNone : parent | uint32_t(next);
    }
  }
  __syncthreads();
  for (int d = mine; d < mine + width; ++d) total[d] = 0;
}

__global__ void find_next(const __grid_constant__ Table<Item> items, int64_t size, bool nesterov,
                          Selection* selections) {
  Selection& selection = selections[blockIdx.y];
  if (!selection.pending) return;
  SHARED_ARRAY(uint32_t, smallest, 1);
  if (threadIdx.x == 0) *smallest = kNone;
  __syncthreads();
  const LookAhead look_ahead(items.entries[blockIdx.y], nesterov);
  const uint32_t low = selection.prefix;
  uint32_t least = kNone;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad u = look_ahead.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const uint32_t key = key_of(u.v[e]);
      if (e < count && key > low) least = min(least, key);
    }
  });
  if (least != kNone) atomicMin(smallest, least);
  __syncthreads();
  if (threadIdx.x == 0 && *smallest != kNone) atomicMin(&selection.next, *smallest);
}

// As numpy interpolates, which makes it exact at both ends.
__device__ double interpolate(double low, double high, double t) {
  return t < 0.5 ? low + (high - low) * t : high - (high - low) * (1 - t);
}

__global__ void write_threshold(const __grid_constant__ Table<Item> items, int64_t size, const Selection* selections,
                                const uint32_t* gate) {
  if (*gate != 0) return;
  const Item& item = items.entries[blockIdx.x];
  const Selection& selection = selections[blockIdx.x];
  const Position position(size, item.scalars->quantile);
  const double low = double(__uint_as_float(selection.prefix));
  const double high = double(__uint_as_float(selection.next));
  *item.threshold = item.scalars->scale * interpolate(low, high, position.exact - double(position.low));
}

}  // namespace

size_t selection_bytes(int64_t items) {
  return Arena::padded(size_t(items) * sizeof(Selection)) +
         Arena::padded(size_t(items) * kDigits * sizeof(unsigned long long));
}

void CudaQueue::threshold(const Batch& batch) {
  const size_t mark = arena_.mark();
  const size_t items = batch.items.size();
  auto* selections = take<Selection>(items);
  auto* counts = take<unsigned long long>(items * kDigits);
  check(cudaMemsetAsync(counts, 0, items * kDigits * sizeof *counts, stream_), "cudaMemsetAsync");
  const Table<Item> table = table_of(batch.items);
  const int64_t size = batch.size();
  const dim3 grid = pass_grid(size, items);
  for (int pass = 0; pass < kPasses; ++pass) {
    launch("count_digits", count_digits, grid, kPassThreads, 0, stream_, table, size, batch.nesterov, pass, selections,
           counts);
    launch("choose_digit", choose_digit, unsigned(items), kPassThreads, 0, stream_, table, size, pass, selections,
           counts);
  }
  launch("find_next", find_next, grid, kPassThreads, 0, stream_, table, size, batch.nesterov, selections);
  launch("write_threshold", write_threshold, unsigned(items), 1, 0, stream_, table, size, selections, gate_);
  arena_.rewind(mark);
}

}  // namespace root_optimizer
