#include <algorithm>
#include <atomic>
#include <limits>

#include "queue.h"
#include "selection.h"

namespace root_optimizer {

namespace {

// A key is found digit by digit from the top; 11 + 11 + 9 bits.
constexpr int kTopShift = 20;
constexpr int kDigits = 1 << 11;

// The digit whose keys include the one of the given rank; `rank` becomes its rank among them.
int find_digit(const int64_t* counts, int64_t& rank) {
  int digit = 0;
  while (rank >= counts[digit]) rank -= counts[digit++];
  return digit;
}

// The key of a rank, in time linear in `count` whatever the keys. Reorders them.
uint32_t select_key(uint32_t* keys, int64_t count, int64_t rank) {
  for (const int shift : {kTopShift, 9, 0}) {
    int64_t counts[kDigits] = {};
    for (int64_t i = 0; i < count; ++i) ++counts[keys[i] >> shift & (kDigits - 1)];
    const uint32_t digit = uint32_t(find_digit(counts, rank));
    count = std::partition(keys, keys + count, [=](uint32_t key) { return (key >> shift & (kDigits - 1)) == digit; }) -
            keys;
  }
  return keys[0];
}

// The smallest key above `key`, or `key` itself where more than `rank` keys do not exceed it.
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

// As numpy interpolates, which makes it exact at both ends.
double interpolate(double low, double high, double t) {
  return t < 0.5 ? low + (high - low) * t : high - (high - low) * (1 - t);
}

}  // namespace

Position::Position(int64_t size, double quantile)
    : exact(double(size - 1) * quantile), low(std::min(int64_t(exact), size - 1)), high(std::min(low + 1, size - 1)) {}

double quantile_of(uint32_t* keys, int64_t count, int64_t skipped, const Position& position) {
  const int64_t rank = position.low - skipped;
  const uint32_t low = select_key(keys, count, rank);
  const uint32_t high = position.high == position.low ? low : next_key(keys, count, low, rank + 1);
  return interpolate(magnitude_of(low), magnitude_of(high), position.exact - double(position.low));
}

void CpuQueue::threshold(const Batch& batch) {
  const auto& [quantile, scale, mu, decay, rate] = *only(batch).scalars;
  const LookAhead u = look_ahead(batch);
  const int64_t size = batch.size();
  const Position position(size, quantile);

  std::vector<int64_t>& counts = digit_counts_;
  std::fill(counts.begin(), counts.end(), 0);
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    uint32_t local[kDigits] = {};
    for (int64_t i = begin; i < end; ++i) ++local[key_of(u(i)) >> kTopShift];
    for (int d = 0; d < kDigits; ++d) {
      if (local[d] != 0) __atomic_fetch_add(&counts[size_t(d)], local[d], __ATOMIC_RELAXED);
    }
  });

  // Everything between the two order statistics' digits is empty, so these hold all keys that matter.
  int64_t rank = position.low;
  int64_t high_rank = position.high;
  const uint32_t low_digit = uint32_t(find_digit(counts.data(), rank));
  const uint32_t high_digit = uint32_t(find_digit(counts.data(), high_rank));

  const size_t mark = arena_.mark();
  uint32_t* candidates = static_cast<uint32_t*>(arena_.take(size_t(size) * sizeof(uint32_t)));
  std::atomic<int64_t> count{0};
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    uint32_t local[kPassGrain];
    int64_t found = 0;
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t key = key_of(u(i));
      const uint32_t digit = key >> kTopShift;
      local[found] = key;
      found += digit == low_digit || digit == high_digit;
    }
    std::copy(local, local + found, candidates + count.fetch_add(found, std::memory_order_relaxed));
  });

  *only(batch).threshold = scale * quantile_of(candidates, count, position.low - rank, position);
  arena_.rewind(mark);
}

}  // namespace root_optimizer
