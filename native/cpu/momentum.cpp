#include <algorithm>
#include <cmath>
#include <limits>

#include "queue.h"

namespace root_optimizer {

namespace {

// Σ min(x, limit)² over magnitudes. In several sums, for one would take as long as its additions one after another.
double clipped_squares_of(const uint32_t* keys, int64_t count, float limit) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {};
  const auto add = [&](double& sum, uint32_t key) {
    const double x = std::min(magnitude_of(key), limit);
    sum += x * x;
  };
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int64_t s = 0; s < kSums; ++s) add(sums[s], keys[i + s]);
  }
  for (; i < count; ++i) add(sums[0], keys[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void CpuQueue::check_momentum(const Batch& batch) {
  const Item& item = only(batch);
  const float mu = item.gradient == nullptr ? 0 : item.scalars->mu;
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    if (kernels_.overflows(item.momentum, item.gradient, mu, batch.nesterov, begin, end))
      __atomic_store_n(item.flag, 1, __ATOMIC_RELAXED);
  });
}

void CpuQueue::momentum(const Batch& batch) {
  const Item& item = only(batch);
  norm_.reset();
  if (item.threshold != nullptr && select_near(batch)) return;
  for_ranges(batch.size(), kPassGrain, [&](int64_t begin, int64_t end) {
    kernels_.accumulate(item.momentum, item.gradient, item.scalars->mu, begin, end);
  });
  if (item.threshold != nullptr) threshold(batch);
}

// Momentum, threshold and norm in one pass, where the quantile is still near the last one: what lies in a bracket
// around that is put aside, what lies below it counted, and its squares are summed. Where the bracket is missed
// `threshold` looks everywhere. False, with nothing done, where there was no last one.
bool CpuQueue::select_near(const Batch& batch) {
  const Item& item = only(batch);
  const float mu = item.scalars->mu;
  const double scale = item.scalars->scale;
  const double last = *item.threshold / scale;
  constexpr double kReach = 0.125;
  if (!(last >= std::numeric_limits<float>::min() * 2 && last <= std::numeric_limits<float>::max() / 2)) return false;
  const uint32_t floor = key_of(float(last * (1 - kReach)));
  const uint32_t width = key_of(float(last * (1 + kReach))) - floor;

  const int64_t size = batch.size();
  const size_t mark = arena_.mark();
  const size_t count = size_t((size + kPassGrain - 1) / kPassGrain);
  auto* const ranges = static_cast<Bracketed*>(arena_.take(count * sizeof(Bracketed)));
  auto* const inside = static_cast<uint32_t*>(arena_.take(size_t(size) * sizeof(uint32_t)));
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    ranges[begin / kPassGrain] =
        kernels_.advance(item.momentum, item.gradient, mu, batch.nesterov, begin, end, floor, width, inside + begin);
  });

  const Position position(size, item.scalars->quantile);
  int64_t below = 0;
  int64_t found = 0;
  for (size_t r = 0; r < count; ++r) {
    below += ranges[r].below;
    found += ranges[r].inside;
  }
  if (position.low < below || position.high >= below + found) {
    arena_.rewind(mark);
    threshold(batch);
    return true;
  }
  const auto keys_of = [&](int64_t r, uint32_t* keys) {
    std::copy_n(inside + r * kPassGrain, ranges[r].inside, keys);
    return ranges[r].inside;
  };
  *item.threshold = scale * select(int64_t(count), keys_of, Digits::within(floor, width), below, position);

  // Only at scale 1 is the limit certain to lie in the bracket.
  const float limit = clip_limit(batch);
  if (scale == 1) {
    for_each(int64_t(count), [&](int64_t r) {
      Bracketed& range = ranges[r];
      const int64_t length = std::min(kPassGrain, size - r * kPassGrain);
      range.squares += double(length - range.below - range.inside) * double(limit) * double(limit);
      range.squares += clipped_squares_of(inside + r * kPassGrain, range.inside, limit);
    });
    double total = 0;
    for (size_t r = 0; r < count; ++r) total += ranges[r].squares;
    norm_ = std::sqrt(total);
  }
  arena_.rewind(mark);
  return true;
}

}  // namespace root_optimizer
