// ε ← scale · quantile of |U|, exactly. Three counting passes over U find the two order statistics around the quantile,
// digit by digit from the top. A fourth pass looks for the upper one if it shares too few bits with the lower one.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

// Some bits of a key.
struct Digit {
  int shift;
  int width;  // in bits

  __host__ __device__ int count() const { return 1 << width; }
  __device__ bool is_first() const { return shift + width == 31; }
  __device__ bool is_last() const { return shift == 0; }
  __device__ uint32_t of(uint32_t key) const { return key >> shift & uint32_t(count() - 1); }
  /// The bits above, which are known already.
  __device__ uint32_t parent_of(uint32_t key) const { return key >> (shift + width); }
};

constexpr Digit kPasses[] = {{20, 11}, {9, 11}, {0, 9}};
constexpr int kMostDigits = 1 << 11;
constexpr uint32_t kNone = 0xffffffffu;

/// How far the search of a matrix has come.
struct Selection {
  int64_t rank;     // the rank of the lower statistic among the keys whose top bits are `prefix`
  uint32_t prefix;  // the lower statistic's top bits; after the last pass its key
  uint32_t next;    // the upper statistic's key
  bool pending;     // the upper statistic is the smallest key above `prefix`, and not found yet
};

__global__ void count_digits(const __grid_constant__ Table<Matrix> matrices, int64_t size, bool nesterov, Digit digit,
                             const Selection* selections, unsigned long long* counts) {
  SHARED_ARRAY(uint32_t, local, kMostDigits);
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) local[d] = 0;
  __syncthreads();
  const LookAhead u(matrices.entries[blockIdx.y], nesterov);
  const uint32_t prefix = digit.is_first() ? 0 : selections[blockIdx.y].prefix;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const uint32_t key = key_of(x.v[e]);
      if (e < count && digit.parent_of(key) == prefix) {
        atomicAdd(&local[digit.of(key)], 1u);
      }
    }
  });
  __syncthreads();
  unsigned long long* total = counts + int64_t(blockIdx.y) * kMostDigits;
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) {
    if (local[d] != 0) atomicAdd(&total[d], static_cast<unsigned long long>(local[d]));
  }
}

// One block a matrix. Leaves the counts at zero for the next pass.
__global__ void choose_digit(const __grid_constant__ Table<Matrix> matrices, int64_t size, Digit digit,
                             Selection* selections, unsigned long long* counts) {
  SHARED_ARRAY(int64_t, sums, kPassThreads);
  unsigned long long* total = counts + int64_t(blockIdx.x) * kMostDigits;
  const int width = digit.count() / kPassThreads;
  const int mine = int(threadIdx.x) * width;
  int64_t sum = 0;
  for (int d = mine; d < mine + width; ++d) sum += int64_t(total[d]);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    const Position position(size, matrices.entries[blockIdx.x].scalars->quantile);
    Selection& selection = selections[blockIdx.x];
    int64_t rank = digit.is_first() ? position.low : selection.rank;
    int group = 0;
    // The bounds keep the search inside its arrays if U changes meanwhile, because somebody still writes the gradients.
    while (group < kPassThreads - 1 && rank >= sums[group]) rank -= sums[group++];
    int found = group * width;
    while (found < digit.count() - 1 && rank >= int64_t(total[found])) rank -= int64_t(total[found++]);
    const uint32_t parent = digit.is_first() ? 0 : selection.prefix << digit.width;
    selection.rank = rank;
    selection.prefix = parent | uint32_t(found);
    if (digit.is_last()) {
      int next = found;
      if (position.high > position.low && rank + 1 >= int64_t(total[found])) {
        do ++next;
        while (next < digit.count() && total[next] == 0);
      }
      selection.pending = next == digit.count();
      selection.next = selection.pending ? kNone : parent | uint32_t(next);
    }
  }
  __syncthreads();
  for (int d = mine; d < mine + width; ++d) total[d] = 0;
}

__global__ void find_next(const __grid_constant__ Table<Matrix> matrices, int64_t size, bool nesterov,
                          Selection* selections) {
  Selection& selection = selections[blockIdx.y];
  if (!selection.pending) return;
  SHARED_ARRAY(uint32_t, smallest, 1);
  if (threadIdx.x == 0) *smallest = kNone;
  __syncthreads();
  const LookAhead u(matrices.entries[blockIdx.y], nesterov);
  const uint32_t low = selection.prefix;
  uint32_t least = kNone;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const uint32_t key = key_of(x.v[e]);
      if (e < count && key > low) least = min(least, key);
    }
  });
  if (least != kNone) atomicMin(smallest, least);
  __syncthreads();
  if (threadIdx.x == 0 && *smallest != kNone) atomicMin(&selection.next, *smallest);
}

__global__ void write_threshold(const __grid_constant__ Table<Matrix> matrices, int64_t size,
                                const Selection* selections, const uint32_t* gate) {
  if (*gate != 0) return;
  const Matrix& matrix = matrices.entries[blockIdx.x];
  const Selection& selection = selections[blockIdx.x];
  const Position position(size, matrix.scalars->quantile);
  const double quantile = position.between(magnitude_of(selection.prefix), magnitude_of(selection.next));
  *matrix.threshold = matrix.scalars->scale * quantile;
}

size_t selection_bytes(int64_t count) {
  return Arena::padded(size_t(count) * sizeof(Selection)) +
         Arena::padded(size_t(count) * kMostDigits * sizeof(unsigned long long));
}

void CudaQueue::threshold(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    const size_t mark = arena_.mark();
    const size_t count = size_t(batch.count());
    auto* selections = take<Selection>(count);
    auto* counts = take<unsigned long long>(count * kMostDigits);
    require(cudaMemsetAsync(counts, 0, count * kMostDigits * sizeof *counts, stream_), "cudaMemsetAsync");
    const Table<Matrix> table = table_of(batch);
    const int64_t size = batch.size();
    const dim3 grid = pass_grid(batch);
    for (const Digit digit : kPasses) {
      launch("count_digits", count_digits, grid, kPassThreads, 0, stream_, table, size, batch.nesterov, digit,
             selections, counts);
      launch("choose_digit", choose_digit, unsigned(count), kPassThreads, 0, stream_, table, size, digit, selections,
             counts);
    }
    launch("find_next", find_next, grid, kPassThreads, 0, stream_, table, size, batch.nesterov, selections);
    launch("write_threshold", write_threshold, unsigned(count), 1, 0, stream_, table, size, selections, gate_);
    arena_.rewind(mark);
  }
}

}  // namespace root_optimizer::cuda
