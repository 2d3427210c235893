#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../native/backend.h"
#include "handles.h"
#include "queue.h"

namespace root_optimizer::cuda {

/// " for 2 matrices of 8 × 4, …": a job's matrices, the long side first; nothing if it has none.
std::string matrices_of(const Job& job);
/// Enqueues a job. Errors that it throws name the job's matrices.
void enqueue(const Job& job, CudaQueue& queue);
/// What is enqueued, in place of running it.
Graph record(cudaStream_t stream, const std::function<void()>& enqueue_all);

/// The launches of a plan, captured as graphs that every step replays: one of the checks, and one for each job of the
/// updates, so that finished data leave for the host while the rest is computed.
class CapturedPlan {
 public:
  /// Holds no plan.
  CapturedPlan() = default;
  /// The checks close `gate` if a flag is raised; the queue of the updates reads it.
  CapturedPlan(const Plan& plan, CudaQueue& checks, CudaQueue& updates, cudaStream_t stream, uint32_t* gate);

  bool is_of(const Plan& plan) const { return version_ == plan.version; }
  void launch_checks(cudaStream_t stream) const;
  /// `begun` ← whether any update has been launched, also if this throws.
  void launch_updates(cudaStream_t stream, bool& begun) const;

  /// The parameters in the order in which their data are finished. `finished` returns the event that tells of it.
  const std::vector<uint32_t>& finishing_order() const { return finishing_order_; }
  cudaEvent_t finished(uint32_t parameter) const { return updates_[job_of_[parameter]].done.get(); }

 private:
  struct Update {
    GraphExec graph;
    Event done;
  };

  uint64_t version_ = 0;
  GraphExec checks_;
  std::vector<Update> updates_;
  std::vector<size_t> job_of_;  // the last job that writes a parameter's data
  std::vector<uint32_t> finishing_order_;
};

}  // namespace root_optimizer::cuda
