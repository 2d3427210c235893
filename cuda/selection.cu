// Order statistics of |U| or |G|, exactly, and the sums of squares around them.
//
// A scan of the values comes first. It puts aside the keys inside a bracket around the last quantile, counts the keys
// below the bracket and adds up their squares. Counting passes then find the order statistics around the quantile,
// digit by digit from the top: among the candidates if the bracket holds the quantile, else among all values. One more
// pass over the same keys finds the next larger key, and adds up the squares of the keys that are not clipped.
//
// No sum depends on the order in which blocks run. Those of floating-point numbers are added block by block, and how
// many blocks there are depends on the size alone. Candidates come in any order, so their squares are added as
// integers.

#include "selection.cuh"

namespace root_optimizer::cuda {

constexpr int kMostDigits = 1 << 11;
constexpr int kMostPasses = 3;
constexpr unsigned long long kOverflow = 1ull << 40;

constexpr int kShare = 16 * kPassThreads;
constexpr int kMostShares = 4;

// The elements of a block of the scan, and its blocks. Both depend on the size alone.
HOST_DEVICE static int64_t share_of(int64_t size) {
  const int64_t shares = (size + 1024 * kShare - 1) / (1024 * kShare);
  return kShare * (shares < 1 ? 1 : shares > kMostShares ? kMostShares : shares);
}
static unsigned scan_blocks(int64_t size) {
  return unsigned(std::max<int64_t>((size + share_of(size) - 1) / share_of(size), 1));
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

  __device__ Course(const Search& search, const Selection& selection)
      : position(search.size, *search.quantile), bracket(bracket_of(search)) {
    const auto below = int64_t(selection.below);
    near_last = bracket.width > 0 && int64_t(selection.inside) <= search.room && position.low >= below &&
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

__device__ LookAhead values_of(const Search& search) {
  return {search.momentum, search.gradient, search.gradient == nullptr ? 0 : *search.mu, search.nesterov,
          search.note == nullptr ? GradientClip{} : search.note->gradient};
}

/// Calls body(key) for the keys of a search that fall to this thread.
template <typename Body>
__device__ void for_each_key(const Search& search, const Share& share, const Course& course, const Selection& selection,
                             Body body) {
  if (course.near_last) {
    const unsigned blocks = min(share.count, kCandidateBlocks);
    const auto count = int64_t(selection.inside);
    if (share.index >= blocks) return;
    for (int64_t i = int64_t(share.index) * blockDim.x + threadIdx.x; i < count; i += int64_t(blocks) * blockDim.x) {
      body(search.candidates[i]);
    }
    return;
  }
  const LookAhead u = values_of(search);
  for_each_quad(search.size, share, [&](int64_t i, int count) {
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
    scan_values(const Search* searches, const Share* shares, const Workspace work) {
  SHARED_ARRAY(uint32_t, kept, kMostShares * kShare / 4);
  SHARED_ARRAY(uint32_t, inside, 1);
  SHARED_ARRAY(uint32_t, below, 1);
  SHARED_ARRAY(unsigned long long, place, 1);
  const Share share = shares[blockIdx.x];
  const Search& search = searches[share.entry];
  Selection& selection = work.selections[share.entry];
  const int64_t size = search.size;
  const int64_t length = share_of(size);
  const uint32_t room = uint32_t(length / 4);
  if (threadIdx.x == 0) *inside = *below = 0;
  __syncthreads();

  const LookAhead u = values_of(search);
  const KeyRange bracket = bracket_of(search);
  const int64_t begin = int64_t(share.index) * length;
  const int64_t end = min(begin + length, size);
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
    work.below[blockIdx.x] = squares;
    if (*below != 0) atomicAdd(&selection.below, static_cast<unsigned long long>(*below));
    if (found != 0) *place = atomicAdd(&selection.inside, found > room ? kOverflow : found);
  }
  if (found == 0 || found > room) return;
  __syncthreads();
  const auto first = int64_t(*place);
  for (uint32_t i = threadIdx.x; i < found && first + i < search.room; i += kPassThreads) {
    search.candidates[first + i] = kept[i];
  }
}

__global__ void count_digits(const Search* searches, const Share* shares, int pass, const Workspace work) {
  SHARED_ARRAY(uint32_t, local, kMostDigits);
  const Share share = shares[blockIdx.x];
  const Search& search = searches[share.entry];
  Selection& selection = work.selections[share.entry];
  const Course course(search, selection);
  if (pass >= course.passes || (course.near_last && share.index >= kCandidateBlocks)) return;
  unsigned long long* const counts = work.counts + int64_t(share.entry) * kMostPasses * kMostDigits;
  const State state = state_before(pass, course, selection, counts);
  if (share.index == 0 && threadIdx.x == 0) {
    selection.rank[pass] = state.rank;
    selection.prefix[pass] = state.prefix;
  }
  const Digit digit = course.digit(pass);
  for (int d = int(threadIdx.x); d < digit.count(); d += int(blockDim.x)) local[d] = 0;
  __syncthreads();
  for_each_key(search, share, course, selection, [&](uint32_t absolute) {
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

__global__ void find_next(const Search* searches, const Share* shares, const Workspace work) {
  SHARED_ARRAY(uint32_t, next, 1);
  SHARED_ARRAY(unsigned long long, sums, 3);  // up_to, squares_low, squares_high
  const Share share = shares[blockIdx.x];
  const Search& search = searches[share.entry];
  Selection& selection = work.selections[share.entry];
  const Course course(search, selection);
  if (course.near_last && share.index >= kCandidateBlocks) return;
  const State state =
      state_before(course.passes, course, selection, work.counts + int64_t(share.entry) * kMostPasses * kMostDigits);
  const uint32_t low = course.bracket.floor + state.prefix;
  if (threadIdx.x == 0) {
    *next = 0;
    sums[0] = sums[1] = sums[2] = 0;
    if (share.index == 0) {
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
  for_each_key(search, share, course, selection, [&](uint32_t key) {
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
    if (!course.near_last) work.squares[blockIdx.x] = squares;
    atomicMax(&selection.next, *next);
    atomicAdd(&selection.up_to, sums[0]);
    atomicAdd(&selection.squares_low, sums[1]);
    atomicAdd(&selection.squares_high, sums[2]);
  }
}

static int64_t room_for(int64_t size, bool near_last) { return near_last ? size / 4 : 0; }

size_t check_bytes(std::span<const Footprint> job) {
  int64_t count = 0;
  int64_t scans = 0;
  int64_t passes = 0;
  int64_t room = 0;
  bool selects = false;
  for (const Footprint& f : job) {
    const int64_t size = f.long_side * f.short_side;
    count += f.count;
    scans += f.count * scan_blocks(size);
    passes += f.count * search_blocks(size);
    room += f.count * room_for(size, f.near_last);
    selects |= f.selects;
  }
  const auto bytes = [](int64_t elements, size_t element) { return Arena::padded(size_t(elements) * element); };
  const size_t total = bytes(count, sizeof(Selection)) + bytes(scans, sizeof(double));
  if (!selects) return total;
  return total + bytes(count * kMostPasses * kMostDigits, sizeof(unsigned long long)) + bytes(passes, sizeof(double)) +
         bytes(room, sizeof(uint32_t));
}

Selected CudaQueue::select(std::vector<Search> searches) {
  const size_t count = searches.size();
  std::vector<unsigned> scans;
  std::vector<unsigned> passes;
  BlockRange scan{};
  BlockRange pass{};
  int64_t room = 0;
  for (Search& search : searches) {
    scan.count = scan_blocks(search.size);
    pass.count = search.quantile == nullptr ? 0 : search_blocks(search.size);
    search.scan = scan;
    search.passes = pass;
    search.room = room_for(search.size, search.last != nullptr);
    scan.first += scan.count;
    pass.first += pass.count;
    room += search.room;
    scans.push_back(scan.count);
    passes.push_back(pass.count);
  }
  Selected selected{.searches = nullptr,
                    .shares = nullptr,
                    .blocks = pass.first,
                    .work = {.selections = take<Selection>(count),
                             .counts = nullptr,
                             .below = take<double>(scan.first),
                             .squares = nullptr}};
  Workspace& work = selected.work;
  require(cudaMemsetAsync(work.selections, 0, count * sizeof(Selection), stream_), "cudaMemsetAsync");
  if (selected.blocks > 0) {
    const size_t counts = count * kMostPasses * kMostDigits;
    work.counts = take<unsigned long long>(counts);
    work.squares = take<double>(selected.blocks);
    auto* candidates = take<uint32_t>(size_t(room));
    for (Search& search : searches) {
      search.candidates = candidates;
      candidates += search.room;
    }
    require(cudaMemsetAsync(work.counts, 0, counts * sizeof *work.counts, stream_), "cudaMemsetAsync");
  }
  selected.searches = tables_.put(searches);
  const Share* const scan_shares = tables_.put(shares_of(scans));
  selected.shares = tables_.put(shares_of(passes));
  launch("scan_values", scan_values, scan.first, kPassThreads, 0, stream_, selected.searches, scan_shares, work);
  if (selected.blocks == 0) return selected;
  for (int number = 0; number < kMostPasses; ++number) {
    launch("count_digits", count_digits, selected.blocks, kPassThreads, 0, stream_, selected.searches, selected.shares,
           number, work);
  }
  launch("find_next", find_next, selected.blocks, kPassThreads, 0, stream_, selected.searches, selected.shares, work);
  return selected;
}

}  // namespace root_optimizer::cuda
