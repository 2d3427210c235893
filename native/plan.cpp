#include "plan.h"

#include <algorithm>
#include <tuple>

namespace root_optimizer {

namespace {

bool same_kind(const Member& a, const Member& b) {
  const auto key = [](const Batch& kind) {
    return std::tuple(kind.rows, kind.columns, kind.nesterov, kind.clips, kind.clips_gradient, kind.normalized,
                      kind.in_out);
  };
  return key(a.kind) == key(b.kind) && *a.coefficients == *b.coefficients;
}

using Kind = std::vector<const Member*>;

std::vector<Kind> kinds_of(const std::vector<Member>& members) {
  std::vector<Kind> kinds;
  for (const Member& member : members) {
    const auto same = [&](const Kind& kind) { return same_kind(*kind[0], member); };
    const auto kind = std::find_if(kinds.begin(), kinds.end(), same);
    if (kind == kinds.end()) {
      kinds.push_back({&member});
    } else {
      kind->push_back(&member);
    }
  }
  return kinds;
}

// Fills segments one after another.
class Segments {
 public:
  Segments(const Backend& backend, bool travels) : backend_(backend), travels_(travels) {}

  void add(const Kind& kind) {
    const Batch& batch = kind[0]->kind;
    const ProductPlan products =
        plan_products(batch.rows, batch.columns, *kind[0]->coefficients, backend_.arithmetic());
    bool grows = false;  // whether the last group is of this kind
    for (const Member* member : kind) {
      MatrixGroup single{.batch = batch, .products = products, .parameters = {}};
      single.batch.matrices = {member->matrix};
      if (grows) {
        ++footprints_.back().count;
      } else {
        footprints_.push_back(footprint_of(single));
      }
      if (begin_if_full(footprint_of(single))) grows = false;

      std::vector<MatrixGroup>& groups = segments_.back().groups;
      if (grows) {
        groups.back().batch.matrices.push_back(member->matrix);
      } else {
        groups.push_back(std::move(single));
      }
      std::vector<uint32_t>& parameters = groups.back().parameters;
      if (parameters.empty() || parameters.back() != member->parameter) parameters.push_back(member->parameter);
      grows = true;
    }
  }

  void add(const MomentsMember& member) {
    footprints_.push_back(footprint_of(member.moments));
    begin_if_full(footprint_of(member.moments));
    segments_.back().moments.push_back(member.moments);
    segments_.back().parameters_of_moments.push_back(member.parameter);
  }

  const std::vector<Segment>& all() const { return segments_; }

 private:
  // Begins a segment with this footprint if there is none, or if the last one is not to take what has been added to
  // the footprints.
  bool begin_if_full(const Footprint& first) {
    const bool full = segments_.empty() || (!segments_.back().empty() && !backend_.takes(footprints_, travels_));
    if (full) {
      segments_.emplace_back();
      footprints_ = {first};
    }
    return full;
  }

  const Backend& backend_;
  const bool travels_;
  std::vector<Segment> segments_;
  std::vector<Footprint> footprints_;  // of the last segment
};

}  // namespace

Plan make_plan(const Backend& backend, std::vector<Member> matrices, std::vector<MomentsMember> moments, bool travels) {
  Plan plan;
  for (Member& member : matrices) member.matrix.index = plan.notes++;
  for (MomentsMember& member : moments) member.moments.index = plan.notes++;
  Segments segments(backend, travels);
  for (const Kind& kind : kinds_of(matrices)) segments.add(kind);
  for (const MomentsMember& member : moments) segments.add(member);
  for (const Segment& segment : segments.all()) {
    plan.checks.push_back(check_job(segment));
    plan.updates.push_back(update_job(segment));
  }
  return plan;
}

}  // namespace root_optimizer
