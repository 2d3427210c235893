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

std::vector<MatrixGroup> groups_of(const Backend& backend, const Kind& kind) {
  const Batch& batch = kind[0]->kind;
  const ProductPlan products = plan_products(batch.rows, batch.columns, *kind[0]->coefficients, backend.arithmetic());
  const size_t limit = size_t(backend.batch_limit(products.footprint(batch.rows, batch.columns, 1)));
  const size_t parts = (kind.size() + limit - 1) / limit;
  std::vector<MatrixGroup> groups;
  for (size_t part = 0; part < parts; ++part) {
    MatrixGroup group{.batch = batch, .products = products, .parameters = {}};
    for (size_t i = kind.size() * part / parts; i < kind.size() * (part + 1) / parts; ++i) {
      group.batch.matrices.push_back(kind[i]->matrix);
      if (group.parameters.empty() || group.parameters.back() != kind[i]->parameter) {
        group.parameters.push_back(kind[i]->parameter);
      }
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace

Plan make_plan(const Backend& backend, std::vector<Member> matrices, const std::vector<MomentsMember>& moments) {
  Plan plan;
  for (Member& member : matrices) member.matrix.index = plan.notes++;
  for (const Kind& kind : kinds_of(matrices)) {
    for (const MatrixGroup& group : groups_of(backend, kind)) {
      plan.checks.push_back(orthogonal_check(group));
      plan.updates.push_back(orthogonal_job(group));
    }
  }
  const size_t limit = size_t(backend.batch_limit({}));
  for (size_t first = 0; first < moments.size(); first += limit) {
    std::vector<Moments> list;
    std::vector<uint32_t> parameters;
    for (size_t i = first; i < std::min(first + limit, moments.size()); ++i) {
      list.push_back(moments[i].moments);
      list.back().index = plan.notes++;
      parameters.push_back(moments[i].parameter);
    }
    plan.checks.push_back(adamw_check(list));
    plan.updates.push_back(adamw_job(list, parameters));
  }
  return plan;
}

}  // namespace root_optimizer
