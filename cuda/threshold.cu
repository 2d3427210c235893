// ε ← scale · quantile of |U|, and ε_G ← scale · quantile of |G|, exactly. Three counting passes over the values find
// the two order statistics around the quantile, digit by digit from the top. A fourth pass looks for the upper one if
// it shares too few bits with the lower one.

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

/// Values among whose magnitudes a quantile is to be found: U of a matrix, or a gradient as it stands.
struct Search {
  const float* values;    // M or G
  const float* gradient;  // null: the values stand for themselves
  const float* mu;        // read only if there is a gradient
  const GradientNote* note;
  const double* quantile;
  int64_t size;
};

/// How far a search has come.
struct Selection {
  Position position;
  int64_t rank;     // the rank of the lower statistic among the keys whose top bits are `prefix`
  uint32_t prefix;  // the lower statistic's top bits; after the last pass its key
  uint32_t next;    // the upper statistic's key
  bool pending;     // the upper statistic is the smallest key above `prefix`, and not found yet
};

__device__ LookAhead values_of(const Search& search) {
  const float* const gradient = search.gradient;
  return {search.values, gradient, gradient == nullptr ? 0 : *search.mu,
          gradient == nullptr || search.note == nullptr ? GradientClip{} : search.note->clip};
}

__global__ void count_digits(const __grid_constant__ Table<Search> searches, Digit digit, const Selection* selections,
                             unsigned long long* counts) {
  SHARED_ARRAY(uint32_t, local, kMostDigits);
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) local[d] = 0;
  __syncthreads();
  const Search& search = searches.entries[blockIdx.y];
  const LookAhead u = values_of(search);
  const uint32_t prefix = digit.is_first() ? 0 : selections[blockIdx.y].prefix;
  for_each_quad(search.size, [&](int64_t i, int count) {
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

// One block a search. Leaves the counts at zero for the next pass.
__global__ void choose_digit(const __grid_constant__ Table<Search> searches, Digit digit, Selection* selections,
                             unsigned long long* counts) {
  SHARED_ARRAY(int64_t, sums, kPassThreads);
  unsigned long long* total = counts + int64_t(blockIdx.x) * kMostDigits;
  const int width = digit.count() / kPassThreads;
  const int mine = int(threadIdx.x) * width;
  int64_t sum = 0;
  for (int d = mine; d < mine + width; ++d) sum += int64_t(total[d]);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    const Search& search = searches.entries[blockIdx.x];
    const Position position(search.size, *search.quantile);
    Selection& selection = selections[blockIdx.x];
    int64_t rank = digit.is_first() ? position.low : selection.rank;
    int group = 0;
    // The bounds keep the search inside its arrays if the values change meanwhile, because somebody still writes
    // the gradients.
    while (group < kPassThreads - 1 && rank >= sums[group]) rank -= sums[group++];
    int found = group * width;
    while (found < digit.count() - 1 && rank >= int64_t(total[found])) rank -= int64_t(total[found++]);
    const uint32_t parent = digit.is_first() ? 0 : selection.prefix << digit.width;
    selection.rank = rank;
    selection.prefix = parent | uint32_t(found);
    if (digit.is_last()) {
      selection.position = position;
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

__global__ void find_next(const __grid_constant__ Table<Search> searches, Selection* selections) {
  Selection& selection = selections[blockIdx.y];
  if (!selection.pending) return;
  SHARED_ARRAY(uint32_t, smallest, 1);
  if (threadIdx.x == 0) *smallest = kNone;
  __syncthreads();
  const Search& search = searches.entries[blockIdx.y];
  const LookAhead u = values_of(search);
  const uint32_t low = selection.prefix;
  uint32_t least = kNone;
  for_each_quad(search.size, [&](int64_t i, int count) {
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

__device__ double quantile_of(const Selection& selection) {
  return selection.position.between(magnitude_of(selection.prefix), magnitude_of(selection.next));
}

__global__ void write_threshold(const __grid_constant__ Table<Matrix> matrices, const Selection* selections,
                                const uint32_t* gate) {
  if (*gate != 0) return;
  const Matrix& matrix = matrices.entries[blockIdx.x];
  matrix.thresholds->threshold = matrix.scalars->scale * quantile_of(selections[blockIdx.x]);
}

// For matrices and for moments.
template <typename T>
__global__ void note_gradient_clip(const __grid_constant__ Table<T> list, const Selection* selections,
                                   GradientNote* notes) {
  const T& entry = list.entries[blockIdx.x];
  const GradientScalars& scalars = entry.scalars->gradient;
  const double threshold = scalars.scale * quantile_of(selections[blockIdx.x]);
  const double mean = entry.thresholds->gradient_scale;
  notes[entry.index] = {.clip = gradient_clip(threshold, mean, scalars.growth),
                        .next_scale = next_gradient_scale(mean, threshold, scalars.growth)};
}

size_t selection_bytes(int64_t count) {
  return Arena::padded(size_t(count) * sizeof(Selection)) +
         Arena::padded(size_t(count) * kMostDigits * sizeof(unsigned long long));
}

// Returns the selections, in scratch that the caller gives back.
const Selection* CudaQueue::select(const std::vector<Search>& searches) {
  const size_t count = searches.size();
  auto* const selections = take<Selection>(count);
  auto* const counts = take<unsigned long long>(count * kMostDigits);
  require(cudaMemsetAsync(counts, 0, count * kMostDigits * sizeof *counts, stream_), "cudaMemsetAsync");
  int64_t largest = 0;
  for (const Search& search : searches) largest = std::max(largest, search.size);
  const dim3 grid = pass_grid(largest, int64_t(count));
  const Table<Search> table = table_of(std::span(searches));
  for (const Digit digit : kPasses) {
    launch("count_digits", count_digits, grid, kPassThreads, 0, stream_, table, digit, selections, counts);
    launch("choose_digit", choose_digit, unsigned(count), kPassThreads, 0, stream_, table, digit, selections, counts);
  }
  launch("find_next", find_next, grid, kPassThreads, 0, stream_, table, selections);
  return selections;
}

void CudaQueue::threshold(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    const size_t mark = arena_.mark();
    const GradientNote* const notes = forming(batch, notes_).notes;
    std::vector<Search> searches;
    for (const Matrix& m : batch.matrices) {
      searches.push_back({.values = m.momentum,
                          .gradient = batch.nesterov ? m.gradient : nullptr,
                          .mu = &m.scalars->mu,
                          .note = notes == nullptr ? nullptr : notes + m.index,
                          .quantile = &m.scalars->quantile,
                          .size = batch.size()});
    }
    const Selection* const selections = select(searches);
    launch("write_threshold", write_threshold, unsigned(batch.count()), 1, 0, stream_, table_of(batch), selections,
           gate_);
    arena_.rewind(mark);
  }
}

template <typename T>
static Search search_of_gradient(const T& entry, int64_t size) {
  return {.values = entry.gradient,
          .gradient = nullptr,
          .mu = nullptr,
          .note = nullptr,
          .quantile = &entry.scalars->gradient.quantile,
          .size = size};
}

void CudaQueue::find_gradient_clips(const Batch& batch) {
  const size_t mark = arena_.mark();
  std::vector<Search> searches;
  for (const Matrix& m : batch.matrices) searches.push_back(search_of_gradient(m, batch.size()));
  const Selection* const selections = select(searches);
  launch("note_gradient_clip", note_gradient_clip<Matrix>, unsigned(batch.count()), 1, 0, stream_, table_of(batch),
         selections, notes_);
  arena_.rewind(mark);
}

void CudaQueue::find_gradient_clips(std::span<const Moments> moments) {
  const size_t mark = arena_.mark();
  std::vector<Moments> clipped;
  std::vector<Search> searches;
  for (const Moments& one : moments) {
    if (one.thresholds == nullptr) continue;
    clipped.push_back(one);
    searches.push_back(search_of_gradient(one, one.size));
  }
  if (clipped.empty()) return;
  const Selection* const selections = select(searches);
  launch("note_gradient_clip", note_gradient_clip<Moments>, unsigned(clipped.size()), 1, 0, stream_,
         table_of(std::span<const Moments>(clipped)), selections, notes_);
  arena_.rewind(mark);
}

}  // namespace root_optimizer::cuda
