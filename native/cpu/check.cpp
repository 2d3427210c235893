#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "queue.h"

namespace root_optimizer::cpu {

namespace {

// Σ min(x, limit)² over magnitudes. The additions of a single sum would wait for one another, so there are several.
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

void raise(uint32_t* flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }

}  // namespace

bool CpuQueue::all_finite(const LookAhead& u, int64_t size) {
  std::atomic<bool> finite{true};
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    if (kernels_.has_non_finite(u, begin, end)) finite.store(false, std::memory_order_relaxed);
  });
  return finite;
}

// Sums in float64, because squares of float32 overflow from 1e19 on.
double CpuQueue::clipped_norm(const LookAhead& u, int64_t size, float limit) {
  return std::sqrt(
      sum_of_ranges(size, [&](int64_t begin, int64_t end) { return kernels_.clipped_squares(u, begin, end, limit); }));
}

// The check also finds the thresholds and the norm that the proximal pass needs, in its one pass over M and G if it
// can.
void CpuQueue::check(const Batch& batch) {
  const Matrix& matrix = only(batch);
  Clip& clip = clips_[matrix.index];
  bool finite = true;
  if (batch.clips_gradient) {
    finite =
        find_gradient_clip(matrix.gradient, batch.size(), matrix.scalars->gradient, *matrix.thresholds, clip.gradient);
  }
  if (!finite) {
    // A gradient that is not finite stays so however it is clipped.
  } else if (batch.clips) {
    finite = find_clip(batch, clip);
  } else if (matrix.data == nullptr) {
    finite = all_finite(look_ahead_of(batch), batch.size());
  } else {
    clip.norm = clipped_norm(look_ahead_of(batch), batch.size(), std::numeric_limits<float>::infinity());
    finite = std::isfinite(clip.norm);  // the norm is finite exactly if all elements are
  }
  if (!finite) raise(matrix.flag);
}

// Returns false if U is not finite.
bool CpuQueue::find_clip(const Batch& batch, Clip& clip) {
  const MatrixScalars& scalars = *only(batch).scalars;
  const LookAhead u = look_ahead_of(batch);
  const Search search{.quantile = scalars.quantile, .scale = scalars.scale, .last = only(batch).thresholds->threshold};
  switch (find_near_last(u, batch.size(), search, clip.threshold, &clip.norm)) {
    case Bracket::found: return true;
    case Bracket::not_finite: return false;
    case Bracket::missed: break;
    case Bracket::not_looked_at:
      if (!all_finite(u, batch.size())) return false;
  }
  clip.threshold = scalars.scale * quantile_of(u, batch.size(), scalars.quantile);
  clip.norm = clipped_norm(u, batch.size(), clip_limit(clip.threshold));
  return true;
}

// Returns false if the gradient is not finite. The quantile is that of a U that is G itself.
bool CpuQueue::find_gradient_clip(const float* gradient, int64_t size, const GradientScalars& scalars,
                                  const Thresholds& thresholds, GradientClip& clip) {
  const LookAhead g{.momentum = const_cast<float*>(gradient),
                    .gradient = nullptr,
                    .mu = 0,
                    .nesterov = false,
                    .clips_gradient = false,
                    .clip = {}};
  const Search search{.quantile = scalars.quantile, .scale = scalars.scale, .last = thresholds.gradient_threshold};
  double threshold = 0;
  switch (find_near_last(g, size, search, threshold, nullptr)) {
    case Bracket::found: break;
    case Bracket::not_finite: return false;
    case Bracket::not_looked_at:
      if (!all_finite(g, size)) return false;
      [[fallthrough]];
    case Bracket::missed: threshold = scalars.scale * quantile_of(g, size, scalars.quantile);
  }
  clip = gradient_clip(threshold, thresholds.gradient_scale, scalars.growth);
  return true;
}

// Finds threshold and norm in one pass if the quantile is still near the last one. The pass puts aside the keys inside
// a bracket around the last quantile, counts the keys below the bracket, and sums their squares.
CpuQueue::Bracket CpuQueue::find_near_last(const LookAhead& u, int64_t size, const Search& search, double& threshold,
                                           double* norm) {
  const KeyRange near = keys_near(search.last / search.scale);
  const uint32_t floor = near.floor;
  const uint32_t width = near.width;
  if (width == 0) return Bracket::not_looked_at;

  const size_t mark = arena_.mark();
  const int64_t count = ranges_of(size);
  auto* const ranges = arena_.take_array<Bracketed>(count);
  const size_t keys_mark = arena_.mark();
  auto* const keys = arena_.take_array<uint32_t>(size);
  for_ranges(size, kPassGrain, [&](int64_t begin, int64_t end) {
    ranges[begin / kPassGrain] = kernels_.collect_bracket(u, begin, end, floor, width, keys + begin);
  });

  Bracketed all{.below = 0, .inside = 0, .squares = 0, .finite = true};
  for (int64_t r = 0; r < count; ++r) {
    std::memmove(keys + all.inside, keys + r * kPassGrain, size_t(ranges[r].inside) * sizeof(uint32_t));
    all.below += ranges[r].below;
    all.inside += ranges[r].inside;
    all.squares += ranges[r].squares;
    all.finite &= ranges[r].finite;
  }
  const Position position(size, search.quantile);
  const bool found = position.low >= all.below && position.high < all.below + all.inside &&
                     all.inside <= size / 2;  // `select` needs the other half of the scratch
  if (!all.finite || !found) {
    arena_.rewind(mark);
    return all.finite ? Bracket::missed : Bracket::not_finite;
  }
  arena_.rewind(keys_mark);  // only the keys inside stay
  arena_.take_array<uint32_t>(all.inside);
  const auto keys_of = [&](int64_t begin, int64_t, uint32_t*) -> const uint32_t* { return keys + begin; };
  threshold = search.scale * select(all.inside, keys_of, Digits::within(floor, width), all.below, position);

  const float limit = clip_limit(threshold);
  if (norm != nullptr && search.scale == 1) {
    const double above = double(size - all.below - all.inside) * double(limit) * double(limit);
    *norm = std::sqrt(all.squares + above + sum_of_ranges(all.inside, [&](int64_t begin, int64_t end) {
                        return clipped_squares_of(keys + begin, end - begin, limit);
                      }));
  }
  arena_.rewind(mark);
  // With another scale the limit need not lie in the bracket.
  if (norm != nullptr && search.scale != 1) *norm = clipped_norm(u, size, limit);
  return Bracket::found;
}

void CpuQueue::check(const Moments& p) {
  const AdamWScalars s = *p.scalars;
  GradientClip& clip = clips_[p.index].gradient;
  clip = {};
  if (p.thresholds != nullptr && !find_gradient_clip(p.gradient, p.size, s.gradient, *p.thresholds, clip)) {
    raise(p.flag);
    return;
  }
  for_ranges(p.size, kPassGrain, [&](int64_t begin, int64_t end) {
    constexpr float kMax = std::numeric_limits<float>::max();
    uint32_t bad = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float g = clipped(p.gradient[i], clip);
      const float average = next_exp_avg(p.exp_avg[i], g, s);
      const float square = next_exp_avg_sq(p.exp_avg_sq[i], g, s);
      bad |= uint32_t(!(std::fabs(average) <= kMax)) | uint32_t(!(square <= kMax));
    }
    if (bad != 0) raise(p.flag);
  });
}

void CpuQueue::check(std::span<const Batch> batches, std::span<const Moments> moments) {
  for (const Batch& batch : batches) check(batch);
  for (const Moments& one : moments) check(one);
}

}  // namespace root_optimizer::cpu
