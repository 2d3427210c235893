#include <algorithm>
#include <atomic>
#include <limits>

#include "queue.h"

namespace root_optimizer::cpu {

namespace {

// Returns the digit whose keys include the key of the given rank. `rank` becomes that key's rank among them.
uint32_t find_digit(const int64_t* counts, int64_t& rank) {
  uint32_t digit = 0;
  while (rank >= counts[digit]) rank -= counts[digit++];
  return digit;
}

// Returns the key of a rank, in time linear in `count` whatever the keys are. Reorders the keys.
uint32_t select_key(uint32_t* keys, int64_t count, int64_t rank) {
  if (count <= 256) {  // takes less time than the digits below
    std::nth_element(keys, keys + rank, keys + count);
    return keys[rank];
  }
  constexpr uint32_t kMask = Digits::kMost - 1;
  for (const int shift : {20, 9, 0}) {  // 11 + 11 + 9 bits
    int64_t counts[Digits::kMost] = {};
    for (int64_t i = 0; i < count; ++i) ++counts[keys[i] >> shift & kMask];
    const uint32_t digit = find_digit(counts, rank);
    count = std::partition(keys, keys + count, [=](uint32_t key) { return (key >> shift & kMask) == digit; }) - keys;
  }
  return keys[0];
}

// Returns the smallest key above `key`, or `key` itself if more than `rank` keys are at most `key`.
uint32_t next_key(const uint32_t* keys, int64_t count, uint32_t key, int64_t rank) {
  int64_t not_above = 0;
  uint32_t above = std::numeric_limits<uint32_t>::max();
  for (int64_t i = 0; i < count; ++i) {
    if (keys[i] <= key) {
      ++not_above;
    } else {
      above = std::min(above, keys[i]);
    }
  }
  return not_above > rank ? key : above;
}

}  // namespace

Digits Digits::within(uint32_t floor, uint32_t width) {
  int shift = 0;
  while (width >> shift >= 128) ++shift;
  return {.floor = floor, .shift = shift, .count = (width >> shift) + 1};
}

// Returns the quantile at `position`. The `size` keys include both order statistics around it and leave out `skipped`
// smaller keys. `keys_of` returns the keys of a range, which it may write to `room`. The time is linear in the number
// of keys, whatever they are: digits are counted, then the keys with the digits of the two order statistics are
// gathered. The digits between those two are empty.
double CpuQueue::select(int64_t size, FunctionRef<const uint32_t*(int64_t, int64_t, uint32_t*)> keys_of,
                        const Digits& digits, int64_t skipped, const Position& position) {
  std::vector<int64_t>& counts = digit_counts_;
  std::fill_n(counts.begin(), digits.count, 0);
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    uint32_t room[kPassGrain];
    const uint32_t* keys = keys_of(begin, end, room);
    uint32_t local[Digits::kMost];
    std::fill(local, local + digits.count, 0);
    for (int64_t i = 0; i < end - begin; ++i) ++local[digits.of(keys[i])];
    for (uint32_t d = 0; d < digits.count; ++d) {
      if (local[d] != 0) __atomic_fetch_add(&counts[d], local[d], __ATOMIC_RELAXED);
    }
  });

  int64_t rank = position.low - skipped;
  int64_t high_rank = position.high - skipped;
  const uint32_t low_digit = find_digit(counts.data(), rank);
  const uint32_t high_digit = find_digit(counts.data(), high_rank);
  const int64_t both = counts[low_digit] + (high_digit == low_digit ? 0 : counts[high_digit]);

  const size_t mark = arena_.mark();
  auto* const candidates = arena_.take_array<uint32_t>(both);
  std::atomic<int64_t> gathered{0};
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    uint32_t room[kPassGrain];
    const uint32_t* keys = keys_of(begin, end, room);
    int64_t found = 0;
    for (int64_t i = 0; i < end - begin; ++i) {
      const uint32_t digit = digits.of(keys[i]);
      room[found] = keys[i];
      found += digit == low_digit || digit == high_digit;
    }
    std::copy(room, room + found, candidates + gathered.fetch_add(found, std::memory_order_relaxed));
  });

  const uint32_t low = select_key(candidates, both, rank);
  const uint32_t high = position.high == position.low ? low : next_key(candidates, both, low, rank + 1);
  arena_.rewind(mark);
  return position.between(magnitude_of(low), magnitude_of(high));
}

double CpuQueue::quantile_of(const LookAhead& u, int64_t size, double quantile) {
  const auto keys_of = [&](int64_t begin, int64_t end, uint32_t* room) -> const uint32_t* {
    for (int64_t i = begin; i < end; ++i) room[i - begin] = key_of(u(i));
    return room;
  };
  return select(size, keys_of, Digits::all(), 0, Position(size, quantile));
}

void CpuQueue::threshold(std::span<const Batch> batches) {
  for (const Batch& batch : batches) {
    const MatrixScalars& scalars = *only(batch).scalars;
    only(batch).thresholds->threshold =
        scalars.scale * quantile_of(look_ahead_of(batch), batch.size(), scalars.quantile);
  }
}

}  // namespace root_optimizer::cpu
