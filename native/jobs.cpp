#include "jobs.h"

#include <algorithm>

namespace root_optimizer {

Footprint Group::footprint() const {
  Footprint footprint = schedule.footprint(batch.tall(), batch.narrow());
  footprint.items = int64_t(batch.items.size());
  footprint.selection = batch.items[0].threshold != nullptr;
  return footprint;
}

Job check_job(const Batch& batch, double cost) {
  const int64_t items = int64_t(batch.items.size());
  const Footprint footprint{batch.tall(), batch.narrow(), 0, 0, batch.items[0].threshold != nullptr, items};
  return {cost, footprint, {}, [=](Queue& queue) { queue.check_momentum(batch); }};
}

static bool same_kind(const Member& a, const Member& b) {
  return a.rows == b.rows && a.columns == b.columns && a.nesterov == b.nesterov &&
         (a.item.threshold == nullptr) == (b.item.threshold == nullptr) && *a.coefficients == *b.coefficients;
}

std::vector<Group> grouped(const Backend& backend, const std::vector<Member>& members) {
  std::vector<std::vector<const Member*>> kinds;
  for (const Member& member : members) {
    const auto same = [&](const std::vector<const Member*>& kind) { return same_kind(*kind[0], member); };
    const auto kind = std::find_if(kinds.begin(), kinds.end(), same);
    if (kind == kinds.end()) {
      kinds.push_back({&member});
    } else {
      kind->push_back(&member);
    }
  }

  std::vector<Group> groups;
  for (const std::vector<const Member*>& kind : kinds) {
    const Member& one = *kind[0];
    Group empty{{one.rows, one.columns, one.nesterov, {}}, {}, {}};
    empty.schedule =
        plan_newton_schulz(empty.batch.tall(), empty.batch.narrow(), *one.coefficients, backend.arithmetic());
    const size_t limit =
        size_t(backend.batch_limit(empty.schedule.footprint(empty.batch.tall(), empty.batch.narrow())));
    const size_t parts = (kind.size() + limit - 1) / limit;
    for (size_t part = 0; part < parts; ++part) {
      Group group = empty;
      for (size_t i = kind.size() * part / parts; i < kind.size() * (part + 1) / parts; ++i) {
        group.batch.items.push_back(kind[i]->item);
        if (group.parameters.empty() || group.parameters.back() != kind[i]->parameter) {
          group.parameters.push_back(kind[i]->parameter);
        }
      }
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

}  // namespace root_optimizer
