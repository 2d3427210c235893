// ε ← scale · quantile of |U|, and ε_G ← scale · quantile of |G|, exactly, and ‖B‖_F with it.
//
// A scan of the values comes first. It puts aside the keys inside a bracket around the last quantile, counts the keys
// below the bracket and adds up their squares. Counting passes then find the order statistics around the quantile,
// digit by digit from the top: among the candidates if the bracket holds the quantile, else among all values. One more
// pass over the same keys finds the next larger key, and adds up the squares of the keys that are not clipped.
//
// No sum depends on the order in which blocks run. Those of floating-point numbers are added block by block, and how
// many blocks there are depends on the size alone. Candidates come in any order, so their squares are added as
// integers.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

/// Values among whose magnitudes a quantile is to be found: U of a matrix, or a gradient as it stands.
struct Search {
  const float* momentum;   // M; G itself, if that is searched
  const float* gradient;   // null: the values are those of `momentum`
  const float* mu;         // read only if there is a gradient
  const CheckNote* note;   // of how the gradient is clipped; null: it is not
  const double* quantile;  // null: nothing is clipped, and the scan adds up all squares
  const double* scale;
  const double* last;  // the threshold of the last step; null: all values are searched
  uint32_t* flag;      // raised if a value is not finite
  int64_t size;
};
static_assert(kTableEntries * sizeof(Search) + 256 <= 4096);

// What passes know of a search so far. Zero at first.
struct Selection {
  unsigned long long
      inside;                // the keys inside the bracket; more than there is room for: not all of them were put aside
  unsigned long long below;  // the keys below the bracket
  unsigned long long up_to;  // of the keys that are searched, those up to the lower statistic
  unsigned long long squares_low;   // the sum of the squares of these, if candidates are searched: in units of
  unsigned long long squares_high;  // the squared last place of the bracket's floor, and in 2^32 of these
  int64_t rank[3];                  // at each digit: the rank of the lower statistic among the keys of the same prefix
  uint32_t prefix[3];               // and the digits above
  uint32_t low;                     // the lower statistic's key
  uint32_t next;                    // the complement of the next larger key
  bool tie;                         // whether the upper statistic has the same key
  bool near_last;                   // whether candidates were searched
};

constexpr int kMostDigits = 1 << 11;
constexpr int kMostPasses = 3;
constexpr unsigned long long kOverflow = 1ull << 40;

/// The scratch of the searches of a launch.
struct Workspace {
  Selection* selections;
  unsigned long long* counts;  // for each search and pass, kMostDigits
  uint32_t* candidates;        // for each search, `room`
  int64_t room;
  double* below;    // for each search and block of the scan, the sum of the squares below the bracket
  double* squares;  // for each search and block of other passes, a sum of squares
  int64_t share;    // the elements of a block of the scan
};

constexpr int kShare = 16 * kPassThreads;
constexpr int kMostShares = 4;

// The elements of a block of the scan, and its blocks. Both depend on the size alone.
static int64_t share_of(int64_t size) {
  return kShare * std::clamp<int64_t>((size + 1024 * kShare - 1) / (1024 * kShare), 1, kMostShares);
}
static unsigned scan_blocks(int64_t size) {
  return unsigned(std::max<int64_t>((size + share_of(size) - 1) / share_of(size), 1));
}
// The most blocks that the scan of any size up to this one has. Beyond 1024 shares the share doubles, and the blocks
// become fewer.
static int64_t most_scan_blocks(int64_t size) {
  const int64_t shares = std::max<int64_t>((size + kShare - 1) / kShare, 1);
  return std::max<int64_t>(scan_blocks(size), std::min<int64_t>(shares, 1024));
}
// The blocks of every other pass.
static unsigned search_blocks(int64_t size) {
  return unsigned(std::clamp<int64_t>((size + kShare - 1) / kShare, 1, 256));
}
// The most blocks that count candidates. Their own counts then stay few enough to be added up quickly.
constexpr unsigned kCandidateBlocks = 32;

__device__ KeyRange bracket_of(const Search& search) {
  if (search.quantile == nullptr) return {0x7f800000u, 0};  // every magnitude is below it
  return search.last == nullptr ? KeyRange{0, 0} : keys_near(*search.last / *search.scale);
}

// Some bits of a key, counted from the bracket's floor or from 0.
struct Digit {
  int shift;
  int width;  // in bits

  __device__ int count() const { return 1 << width; }
  __device__ uint32_t of(uint32_t key) const { return key >> shift & uint32_t(count() - 1); }
  /// The bits above, which are known already.
  __device__ uint32_t parent_of(uint32_t key) const { return key >> (shift + width); }
};

// What a search goes through, as its scan has left it.
struct Course {
  Position position;
  bool near_last;
  KeyRange bracket;  // all keys, if all values are searched
  int passes;

  __device__ Course(const Search& search, const Selection& selection, int64_t room)
      : position(search.size, *search.quantile), bracket(bracket_of(search)) {
    const auto below = int64_t(selection.below);
    near_last = bracket.width > 0 && int64_t(selection.inside) <= room && position.low >= below &&
                position.high < below + int64_t(selection.inside);
    if (!near_last) bracket = {0, 0x80000000u};
    passes = near_last ? 2 : 3;
  }

  __device__ Digit digit(int pass) const {
    if (!near_last) return pass == 0 ? Digit{20, 11} : pass == 1 ? Digit{9, 11} : Digit{0, 9};
    const int bits = 32 - __clz(int(bracket.width - 1));  // 22 at most
    const int second = max(bits - 11, 0);
    return pass == 0 ? Digit{second, bits - second} : Digit{0, second};
  }
};

// The digit that the lower statistic has, of counted ones.
struct Chosen {
  uint32_t digit;
  int64_t rank;   // among the keys that have it
  int64_t count;  // of these keys
};

// A whole block chooses together. If the values change meanwhile, because somebody still writes the gradients, the
// result is some digit.
__device__ Chosen choose_digit(const unsigned long long* counts, int digits, int64_t rank) {
  constexpr int kEach = kMostDigits / kPassThreads;
  SHARED_ARRAY(int64_t, warps, kPassThreads / 32);
  SHARED_ARRAY(Chosen, chosen, 1);
  const int lane = int(threadIdx.x) % 32;
  const int warp = int(threadIdx.x) / 32;
  int64_t own[kEach];
  long long up_to = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int digit = int(threadIdx.x) * kEach + i;
    own[i] = digit < digits ? int64_t(counts[digit]) : 0;
    up_to += own[i];
  }
  const long long sum = up_to;
  for (int distance = 1; distance < 32; distance *= 2) {
    const long long before = __shfl_up_sync(0xffffffffu, up_to, distance);
    if (lane >= distance) up_to += before;
  }
  if (lane == 31) warps[warp] = up_to;
  if (threadIdx.x == 0) *chosen = {0, 0, 0};
  __syncthreads();
  for (int w = 0; w < warp; ++w) up_to += warps[w];
  int64_t left = rank - (up_to - sum);
  if (left >= 0 && left < sum) {
    int i = 0;
    int64_t count = own[0];
#pragma unroll
    for (int next = 1; next < kEach; ++next) {
      // All counts before have been passed if the one just before has.
      if (i == next - 1 && left >= own[next - 1]) {
        left -= own[next - 1];
        i = next;
        count = own[next];
      }
    }
    *chosen = {uint32_t(int(threadIdx.x) * kEach + i), left, count};
  }
  __syncthreads();
  const Chosen result = *chosen;
  __syncthreads();
  return result;
}

// Where the search stands before a pass.
struct State {
  int64_t rank;
  uint32_t prefix;
  int64_t count;  // the keys of this prefix; not known before the first pass
};

// A whole block finds it, and its first thread may keep it for the pass after this one.
__device__ State state_before(int pass, const Course& course, const Selection& selection,
                              const unsigned long long* counts) {
  if (pass == 0) {
    const int64_t below = course.near_last ? int64_t(selection.below) : 0;
    return {course.position.low - below, 0, 0};
  }
  const Digit digit = course.digit(pass - 1);
  const Chosen chosen = choose_digit(counts + int64_t(pass - 1) * kMostDigits, digit.count(), selection.rank[pass - 1]);
  return {chosen.rank, selection.prefix[pass - 1] << digit.width | chosen.digit, chosen.count};
}

__device__ LookAhead values_of(const Search& search, bool nesterov) {
  return {search.momentum, search.gradient, search.gradient == nullptr ? 0 : *search.mu, nesterov,
          search.note == nullptr ? GradientClip{} : search.note->gradient};
}

/// Calls body(key) for the keys of a search that fall to this thread.
template <typename Body>
__device__ void for_each_key(const Search& search, const Course& course, const Selection& selection, bool nesterov,
                             const uint32_t* candidates, Body body) {
  if (course.near_last) {
    const unsigned blocks = min(gridDim.x, kCandidateBlocks);
    const auto count = int64_t(selection.inside);
    if (blockIdx.x >= blocks) return;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(blocks) * blockDim.x) {
      body(candidates[i]);
    }
    return;
  }
  const LookAhead u = values_of(search, nesterov);
  for_each_quad(search.size, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      if (e < count) body(key_of(x.v[e]));
    }
  });
}

// Sums in float64, because squares of float32 overflow from 1e19 on.
__device__ double square_of(uint32_t key) {
  const double magnitude = magnitude_of(key);
  return magnitude * magnitude;
}

__global__ void __launch_bounds__(kPassThreads, 6)
    scan_values(const __grid_constant__ Table<Search> searches, bool nesterov, const Workspace work) {
  SHARED_ARRAY(uint32_t, kept, kMostShares * kShare / 4);
  SHARED_ARRAY(uint32_t, inside, 1);
  SHARED_ARRAY(uint32_t, below, 1);
  SHARED_ARRAY(unsigned long long, place, 1);
  const Search& search = searches.entries[blockIdx.y];
  Selection& selection = work.selections[blockIdx.y];
  const uint32_t room = uint32_t(work.share / 4);
  if (threadIdx.x == 0) *inside = *below = 0;
  __syncthreads();

  const LookAhead u = values_of(search, nesterov);
  const KeyRange bracket = bracket_of(search);
  const int64_t begin = int64_t(blockIdx.x) * work.share;
  const int64_t end = min(begin + work.share, search.size);
  uint32_t own_below = 0;
  double squares = 0;
  bool bad = false;
  for (int64_t i = begin + int64_t(threadIdx.x) * 4; i < end; i += 4 * kPassThreads) {
    const int count = int(min(end - i, int64_t(4)));
    const Quad x = u.quad(i, count);
    uint32_t candidates = 0;  // a bit for each element
    for (int e = 0; e < 4; ++e) {
      const uint32_t key = key_of(x.v[e]);
      bad |= not_finite(x.v[e]);
      if (e >= count) continue;
      if (key < bracket.floor) {
        ++own_below;
        squares += square_of(key);
      } else if (key - bracket.floor < bracket.width) {
        candidates |= 1u << e;
      }
    }
    if (candidates != 0) {
      uint32_t at = atomicAdd(inside, uint32_t(__popc(candidates)));
      for (int e = 0; e < 4; ++e) {
        if ((candidates >> e & 1) == 0) continue;
        if (at < room) kept[at] = key_of(x.v[e]);
        ++at;
      }
    }
  }
  if (bad) *search.flag = 1;
  atomicAdd(below, own_below);
  squares = block_sum(squares);
  __syncthreads();
  const uint32_t found = *inside;
  if (threadIdx.x == 0) {
    work.below[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = squares;
    if (*below != 0) atomicAdd(&selection.below, static_cast<unsigned long long>(*below));
    if (found != 0) *place = atomicAdd(&selection.inside, found > room ? kOverflow : found);
  }
  if (found == 0 || found > room) return;
  __syncthreads();
  const auto first = int64_t(*place);
  uint32_t* const out = work.candidates + int64_t(blockIdx.y) * work.room;
  for (uint32_t i = threadIdx.x; i < found && first + i < work.room; i += kPassThreads) out[first + i] = kept[i];
}

__global__ void count_digits(const __grid_constant__ Table<Search> searches, bool nesterov, int pass,
                             const Workspace work) {
  SHARED_ARRAY(uint32_t, local, kMostDigits);
  const Search& search = searches.entries[blockIdx.y];
  Selection& selection = work.selections[blockIdx.y];
  const Course course(search, selection, work.room);
  if (pass >= course.passes || (course.near_last && blockIdx.x >= kCandidateBlocks)) return;
  unsigned long long* const counts = work.counts + int64_t(blockIdx.y) * kMostPasses * kMostDigits;
  const State state = state_before(pass, course, selection, counts);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    selection.rank[pass] = state.rank;
    selection.prefix[pass] = state.prefix;
  }
  const Digit digit = course.digit(pass);
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) local[d] = 0;
  __syncthreads();
  const uint32_t* const candidates = work.candidates + int64_t(blockIdx.y) * work.room;
  for_each_key(search, course, selection, nesterov, candidates, [&](uint32_t absolute) {
    const uint32_t key = absolute - course.bracket.floor;
    if (digit.parent_of(key) == state.prefix) atomicAdd(&local[digit.of(key)], 1u);
  });
  __syncthreads();
  unsigned long long* const total = counts + int64_t(pass) * kMostDigits;
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) {
    if (local[d] != 0) atomicAdd(&total[d], static_cast<unsigned long long>(local[d]));
  }
}

// The integer that a magnitude is in units of the last place of the bracket's floor: 25 bits at most, because the
// bracket reaches into one more binade at most.
__device__ uint32_t units_of(uint32_t key, uint32_t floor) {
  const uint32_t hidden = key >> 23 != 0 ? 1u << 23 : 0;
  return ((key & 0x7fffffu) | hidden) << (max(key >> 23, 1u) - max(floor >> 23, 1u));
}

__device__ double unit_of(uint32_t floor) { return scalbn(1.0, int(max(floor >> 23, 1u)) - 150); }

__global__ void find_next(const __grid_constant__ Table<Search> searches, bool nesterov, const Workspace work) {
  SHARED_ARRAY(uint32_t, next, 1);
  SHARED_ARRAY(unsigned long long, sums, 3);  // up_to, squares_low, squares_high
  const Search& search = searches.entries[blockIdx.y];
  Selection& selection = work.selections[blockIdx.y];
  const Course course(search, selection, work.room);
  if (course.near_last && blockIdx.x >= kCandidateBlocks) return;
  const State state =
      state_before(course.passes, course, selection, work.counts + int64_t(blockIdx.y) * kMostPasses * kMostDigits);
  const uint32_t low = course.bracket.floor + state.prefix;
  if (threadIdx.x == 0) {
    *next = 0;
    sums[0] = sums[1] = sums[2] = 0;
    if (blockIdx.x == 0) {
      selection.low = low;
      selection.tie = state.rank + 1 < state.count || course.position.high == course.position.low;
      selection.near_last = course.near_last;
    }
  }
  __syncthreads();
  uint32_t least = 0xffffffffu;
  unsigned long long up_to = 0;
  unsigned long long squares_low = 0;
  unsigned long long squares_high = 0;
  double squares = 0;
  const uint32_t* const candidates = work.candidates + int64_t(blockIdx.y) * work.room;
  for_each_key(search, course, selection, nesterov, candidates, [&](uint32_t key) {
    if (key > low) {
      least = min(least, key);
      return;
    }
    ++up_to;
    if (course.near_last) {
      const auto units = static_cast<unsigned long long>(units_of(key, course.bracket.floor));
      squares_low += units * units & 0xffffffffu;
      squares_high += units * units >> 32;
    } else {
      squares += square_of(key);
    }
  });
  if (least != 0xffffffffu) atomicMax(next, ~least);
  atomicAdd(&sums[0], up_to);
  atomicAdd(&sums[1], squares_low);
  atomicAdd(&sums[2], squares_high);
  squares = block_sum(squares);
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!course.near_last) work.squares[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = squares;
    atomicMax(&selection.next, *next);
    atomicAdd(&selection.up_to, sums[0]);
    atomicAdd(&selection.squares_low, sums[1]);
    atomicAdd(&selection.squares_high, sums[2]);
  }
}

__device__ double quantile_of(const Selection& selection, int64_t size, double quantile) {
  const uint32_t high = selection.tie ? selection.low : ~selection.next;
  return Position(size, quantile).between(magnitude_of(selection.low), magnitude_of(high));
}

__global__ void write_threshold(const __grid_constant__ Table<Matrix> matrices, int64_t size, const Workspace work,
                                const uint32_t* gate) {
  if (*gate != 0) return;
  const Matrix& matrix = matrices.entries[blockIdx.x];
  matrix.thresholds->threshold =
      matrix.scalars->scale * quantile_of(work.selections[blockIdx.x], size, matrix.scalars->quantile);
}

// For matrices, whose size is given, and for moments.
__device__ int64_t size_of(const Matrix&, int64_t size) { return size; }
__device__ int64_t size_of(const Moments& moments, int64_t) { return moments.size; }

template <typename T>
__global__ void note_gradient_clip(const __grid_constant__ Table<T> list, int64_t size, const Workspace work,
                                   CheckNote* notes) {
  const T& entry = list.entries[blockIdx.x];
  const GradientScalars& scalars = entry.scalars->gradient;
  const double threshold =
      scalars.scale * quantile_of(work.selections[blockIdx.x], size_of(entry, size), scalars.quantile);
  const double mean = entry.thresholds->gradient_scale;
  notes[entry.index].gradient = gradient_clip(threshold, mean, scalars.growth);
  notes[entry.index].next_scale = next_gradient_scale(mean, threshold, scalars.growth);
}

/// The sum of a matrix's partial sums. The whole block adds them, in a fixed order; the result is thread 0's.
__device__ double sum_of(const double* partial, unsigned count) {
  double sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += kPassThreads) sum += partial[i];
  __syncthreads();
  return block_sum(sum);
}

__device__ double factor_of(double squares) { return 1 / (sqrt(squares) + 1e-7); }

// Notes ε and, where the passes have found it, ‖B‖. One block a matrix.
__global__ void note_clip(const __grid_constant__ Table<Matrix> matrices, int64_t size, bool clips, unsigned scans,
                          unsigned blocks, const Workspace work, CheckNote* notes) {
  const Matrix& matrix = matrices.entries[blockIdx.x];
  const Selection& selection = work.selections[blockIdx.x];
  const bool near_last = clips && selection.near_last;
  const double below = sum_of(work.below + int64_t(blockIdx.x) * scans, scans);
  const double searched = clips && !near_last ? sum_of(work.squares + int64_t(blockIdx.x) * blocks, blocks) : 0;
  if (threadIdx.x != 0) return;
  CheckNote& note = notes[matrix.index];
  note.threshold = 0;
  if (!clips) {
    note.factor = factor_of(below);
    return;
  }
  note.threshold = matrix.scalars->scale * quantile_of(selection, size, matrix.scalars->quantile);
  const double limit = clip_limit(note.threshold);
  // Keys above the lower statistic are clipped if ε lies between the two statistics.
  if (matrix.scalars->scale != 1 || isinf(limit)) {
    note.factor = -1;
    return;
  }
  const double unit = near_last ? unit_of(keys_near(matrix.thresholds->threshold / matrix.scalars->scale).floor) : 0;
  const double kept =
      near_last ? below + (double(selection.squares_high) * 4294967296.0 + double(selection.squares_low)) * unit * unit
                : searched;
  const auto up_to = int64_t(selection.up_to + (near_last ? selection.below : 0));
  note.factor = factor_of(kept + double(size - up_to) * limit * limit);
}

// The squares of B where ε is not a quantile.
__global__ void sum_squares(const __grid_constant__ Table<Matrix> matrices, int64_t size, const Forming forming,
                            double* partial) {
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const CheckNote& note = forming.notes[matrix.index];
  if (note.factor >= 0) return;
  const LookAhead u(matrix, forming);
  const float limit = clip_limit(note.threshold);
  double sum = 0;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const double kept = clamp(x.v[e], limit);
      sum += kept * kept;
    }
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// One block a matrix.
__global__ void note_norm(const __grid_constant__ Table<Matrix> matrices, const double* partial, unsigned blocks,
                          CheckNote* notes) {
  CheckNote& note = notes[matrices.entries[blockIdx.x].index];
  if (note.factor >= 0) return;
  const double sum = sum_of(partial + int64_t(blockIdx.x) * blocks, blocks);
  if (threadIdx.x == 0) note.factor = factor_of(sum);
}

static int64_t room_for(int64_t size, bool near_last) { return near_last ? size / 4 : 0; }

size_t check_bytes(int64_t size, int64_t count, bool selects, bool near_last) {
  const auto bytes = [&](int64_t each, size_t element) { return Arena::padded(size_t(count * each) * element); };
  size_t total = bytes(1, sizeof(Selection)) + bytes(most_scan_blocks(size), sizeof(double));
  if (!selects) return total;
  return total + bytes(kMostPasses * kMostDigits, sizeof(unsigned long long)) +
         bytes(search_blocks(size), sizeof(double)) + bytes(room_for(size, near_last), sizeof(uint32_t));
}

Workspace CudaQueue::select(const std::vector<Search>& searches, bool nesterov, bool near_last) {
  const size_t count = searches.size();
  int64_t size = 0;
  for (const Search& search : searches) size = std::max(size, search.size);
  const bool selects = searches[0].quantile != nullptr;
  const int64_t room = room_for(size, near_last);
  const dim3 scan(scan_blocks(size), unsigned(count));
  const dim3 grid(search_blocks(size), unsigned(count));
  Workspace work{.selections = take<Selection>(count),
                 .counts = nullptr,
                 .candidates = nullptr,
                 .room = room,
                 .below = take<double>(count * scan.x),
                 .squares = nullptr,
                 .share = share_of(size)};
  require(cudaMemsetAsync(work.selections, 0, count * sizeof(Selection), stream_), "cudaMemsetAsync");
  if (selects) {
    const size_t counts = count * kMostPasses * kMostDigits;
    work.counts = take<unsigned long long>(counts);
    work.squares = take<double>(count * grid.x);
    work.candidates = take<uint32_t>(count * size_t(room));
    require(cudaMemsetAsync(work.counts, 0, counts * sizeof *work.counts, stream_), "cudaMemsetAsync");
  }
  const Table<Search> table = table_of(std::span(searches));
  launch("scan_values", scan_values, scan, kPassThreads, 0, stream_, table, nesterov, work);
  if (!selects) return work;
  for (int pass = 0; pass < kMostPasses; ++pass) {
    launch("count_digits", count_digits, grid, kPassThreads, 0, stream_, table, nesterov, pass, work);
  }
  launch("find_next", find_next, grid, kPassThreads, 0, stream_, table, nesterov, work);
  return work;
}

static std::vector<Search> searches_of(const Batch& batch, const CheckNote* notes, bool selects, bool near_last) {
  std::vector<Search> searches;
  for (const Matrix& m : batch.matrices) {
    searches.push_back({.momentum = m.momentum,
                        .gradient = m.gradient,
                        .mu = m.gradient == nullptr ? nullptr : &m.scalars->mu,
                        .note = batch.clips_gradient ? notes + m.index : nullptr,
                        .quantile = selects ? &m.scalars->quantile : nullptr,
                        .scale = selects ? &m.scalars->scale : nullptr,
                        .last = selects && near_last ? &m.thresholds->threshold : nullptr,
                        .flag = m.flag,
                        .size = batch.size()});
  }
  return searches;
}

void CudaQueue::find_clips(const Batch& batch) {
  const size_t mark = arena_.mark();
  const Workspace work = select(searches_of(batch, notes_, batch.clips, true), batch.nesterov, true);
  const unsigned blocks = search_blocks(batch.size());
  launch("note_clip", note_clip, unsigned(batch.count()), kPassThreads, 0, stream_, table_of(batch), batch.size(),
         batch.clips, scan_blocks(batch.size()), blocks, work, notes_);
  if (batch.clips) {
    launch("sum_squares", sum_squares, dim3(blocks, unsigned(batch.count())), kPassThreads, 0, stream_, table_of(batch),
           batch.size(), forming(batch, notes_), work.squares);
    launch("note_norm", note_norm, unsigned(batch.count()), kPassThreads, 0, stream_, table_of(batch), work.squares,
           blocks, notes_);
  }
  arena_.rewind(mark);
}

void CudaQueue::threshold(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    const size_t mark = arena_.mark();
    const Workspace work = select(searches_of(batch, notes_, true, false), batch.nesterov, false);
    launch("write_threshold", write_threshold, unsigned(batch.count()), 1, 0, stream_, table_of(batch), batch.size(),
           work, gate_);
    arena_.rewind(mark);
  }
}

// A gradient is searched as an M that stays as it is.
template <typename T>
static Search search_of_gradient(const T& entry, int64_t size, const double* last) {
  return {.momentum = entry.gradient,
          .gradient = nullptr,
          .mu = nullptr,
          .note = nullptr,
          .quantile = &entry.scalars->gradient.quantile,
          .scale = &entry.scalars->gradient.scale,
          .last = last,
          .flag = entry.flag,
          .size = size};
}

void CudaQueue::find_gradient_clips(const Batch& batch) {
  const size_t mark = arena_.mark();
  std::vector<Search> searches;
  for (const Matrix& m : batch.matrices) {
    searches.push_back(search_of_gradient(m, batch.size(), &m.thresholds->gradient_threshold));
  }
  const Workspace work = select(searches, false, true);
  launch("note_gradient_clip", note_gradient_clip<Matrix>, unsigned(batch.count()), 1, 0, stream_, table_of(batch),
         batch.size(), work, notes_);
  arena_.rewind(mark);
}

// These have different sizes, and there is no room for candidates of each as for those of the largest one.
void CudaQueue::find_gradient_clips(std::span<const Moments> moments) {
  const size_t mark = arena_.mark();
  std::vector<Moments> clipped;
  std::vector<Search> searches;
  for (const Moments& one : moments) {
    if (one.thresholds == nullptr) continue;
    clipped.push_back(one);
    searches.push_back(search_of_gradient(one, one.size, nullptr));
  }
  if (clipped.empty()) return;
  const Workspace work = select(searches, false, false);
  launch("note_gradient_clip", note_gradient_clip<Moments>, unsigned(clipped.size()), 1, 0, stream_,
         table_of(std::span<const Moments>(clipped)), int64_t(0), work, notes_);
  arena_.rewind(mark);
}

}  // namespace root_optimizer::cuda
