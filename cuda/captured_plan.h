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

/// The launches of a plan, captured as graphs that every step replays: for each job one of its check and one of its
/// update, so that data travel to and from the host while other jobs run.
class CapturedPlan {
 public:
  /// Holds no plan.
  CapturedPlan() = default;
  /// The last check closes `gate` if a flag is raised; the queue of the updates reads it.
  CapturedPlan(const Plan& plan, CudaQueue& checks, CudaQueue& updates, cudaStream_t stream, uint32_t* gate);

  bool is_of(const Plan& plan) const { return version_ == plan.version; }
  size_t jobs() const { return jobs_.size(); }
  /// The parameters that no job before this one works on, and those that no job after it does.
  const std::vector<uint32_t>& begins(size_t job) const { return jobs_[job].begins; }
  const std::vector<uint32_t>& finishes(size_t job) const { return jobs_[job].finishes; }

  void launch_check(size_t job, cudaStream_t stream) const;
  void launch_update(size_t job, cudaStream_t stream) const;
  /// Comes when the update is done.
  cudaEvent_t done(size_t job) const { return jobs_[job].done.get(); }

 private:
  struct Graphs {
    GraphExec check, update;
    Event done;
    std::vector<uint32_t> begins, finishes;
  };

  uint64_t version_ = 0;
  std::vector<Graphs> jobs_;
};

}  // namespace root_optimizer::cuda
