#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "queue.h"

namespace root_optimizer {

namespace {

// How far around the last threshold the next one is looked for, relative to it. Keys inside cost more than others, and
// a bracket missed costs a few passes: in training one of 17 is, where half as far would miss one of 4. Nothing that a
// checkpoint lacks may decide it: sums of squares depend on it, and a run that is resumed is to give the same bits.
constexpr double kReach = 1.0 / 8;

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

double CpuQueue::sum_of_ranges(int64_t size, FunctionRef<double(int64_t, int64_t)> sum) {
  const size_t mark = arena_.mark();
  const int64_t count = ranges_of(size);
  double* partial = static_cast<double*>(arena_.take(size_t(count) * sizeof(double)));
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) { partial[begin / kPassGrain] = sum(begin, end); });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += partial[i];
  arena_.rewind(mark);
  return total;
}

bool CpuQueue::all_finite(const LookAhead& u, int64_t size) {
  std::atomic<bool> finite{true};
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    if (kernels_.overflows(u, begin, end)) finite.store(false, std::memory_order_relaxed);
  });
  return finite;
}

// In float64: float32 squares overflow from 1e19 on.
double CpuQueue::clipped_norm(const LookAhead& u, int64_t size, float limit) {
  return std::sqrt(
      sum_of_ranges(size, [&](int64_t begin, int64_t end) { return kernels_.clipped_squares(u, begin, end, limit); }));
}

// What a step wants to know of U before it, in one pass over M and G where it can be: nothing that outlives a refused
// step is written but `clip`.
void CpuQueue::check_momentum(const Batch& batch) {
  const Item& item = only(batch);
  const LookAhead u = look_ahead(batch);
  const int64_t size = batch.size();
  bool finite;
  if (item.clip == nullptr) {
    finite = all_finite(u, size);
  } else if (item.threshold == nullptr) {
    item.clip->norm = clipped_norm(u, size, std::numeric_limits<float>::infinity());
    finite = std::isfinite(item.clip->norm);  // as all elements are
  } else {
    finite = find_clip(batch);
  }
  if (!finite) __atomic_store_n(item.flag, 1, __ATOMIC_RELAXED);
}

bool CpuQueue::find_clip(const Batch& batch) {
  const Item& item = only(batch);
  const LookAhead u = look_ahead(batch);
  switch (find_near(batch, u)) {
    case Found::not_finite: return false;
    case Found::clip: return true;
    case Found::finite: break;
    case Found::nothing:
      if (!all_finite(u, batch.size())) return false;
  }
  Clip& clip = *item.clip;
  clip.threshold = item.scalars->scale * quantile_of(u, batch.size(), item.scalars->quantile);
  clip.norm = clipped_norm(u, batch.size(), clip_limit(clip.threshold));
  return true;
}

// Threshold and norm in one pass, where the quantile is still near the last one: what lies in a bracket around that is
// put aside, what lies below it counted, and its squares are summed.
CpuQueue::Found CpuQueue::find_near(const Batch& batch, const LookAhead& u) {
  const Item& item = only(batch);
  Clip& clip = *item.clip;
  const double scale = item.scalars->scale;
  const double last = *item.threshold / scale;
  if (!(last >= std::numeric_limits<float>::min() * 2 && last <= std::numeric_limits<float>::max() / 2)) {
    return Found::nothing;
  }
  const uint32_t floor = key_of(float(last * (1 - kReach)));
  const uint32_t width = key_of(float(last * (1 + kReach))) - floor;

  const int64_t size = batch.size();
  const size_t mark = arena_.mark();
  const int64_t count = ranges_of(size);
  auto* const ranges = static_cast<Bracketed*>(arena_.take(size_t(count) * sizeof(Bracketed)));
  const size_t keys_mark = arena_.mark();
  auto* const keys = static_cast<uint32_t*>(arena_.take(size_t(size) * sizeof(uint32_t)));
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    ranges[begin / kPassGrain] = kernels_.survey(u, begin, end, floor, width, keys + begin);
  });

  Bracketed all{0, 0, 0, true};
  for (int64_t r = 0; r < count; ++r) {
    std::memmove(keys + all.inside, keys + r * kPassGrain, size_t(ranges[r].inside) * sizeof(uint32_t));
    all.below += ranges[r].below;
    all.inside += ranges[r].inside;
    all.squares += ranges[r].squares;
    all.finite &= ranges[r].finite;
  }
  if (!all.finite) {
    arena_.rewind(mark);
    return Found::not_finite;
  }
  const Position position(size, item.scalars->quantile);
  const bool inside = position.low >= all.below && position.high < all.below + all.inside;
  if (!inside || all.inside > size / 2) {  // `select` needs the other half
    arena_.rewind(mark);
    return Found::finite;
  }
  arena_.rewind(keys_mark);  // of the list only what lies inside stays
  arena_.take(size_t(all.inside) * sizeof(uint32_t));
  const auto keys_of = [&](int64_t begin, int64_t, uint32_t*) -> const uint32_t* { return keys + begin; };
  clip.threshold = scale * select(all.inside, keys_of, Digits::within(floor, width), all.below, position);

  const float limit = clip_limit(clip.threshold);
  if (scale == 1) {
    const double above = double(size - all.below - all.inside) * double(limit) * double(limit);
    clip.norm = std::sqrt(all.squares + above + sum_of_ranges(all.inside, [&](int64_t begin, int64_t end) {
                            return clipped_squares_of(keys + begin, end - begin, limit);
                          }));
    arena_.rewind(mark);
  } else {  // the limit need not lie in the bracket
    arena_.rewind(mark);
    clip.norm = clipped_norm(u, size, limit);
  }
  return Found::clip;
}

}  // namespace root_optimizer
