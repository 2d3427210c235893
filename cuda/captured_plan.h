#pragma once

#include <cstdint>
#include <vector>

#include "../native/backend.h"
#include "handles.h"
#include "host_link.h"
#include "queue.h"

namespace root_optimizer::cuda {

/// Enqueues a job. Errors that it throws name the shape of the job's matrices.
void enqueue(const Job& job, CudaQueue& queue);

/// The launches of a plan, captured as graphs that every step replays: one of the checks, and one for each segment of
/// the updates. A segment ends when it has finished enough parameters' data to be worth sending to the host, so that
/// finished data leave while the rest is computed.
class CapturedPlan {
 public:
  /// Holds no plan.
  CapturedPlan() = default;
  /// The checks close `gate` if a flag is raised; the queue of the updates reads it.
  CapturedPlan(const Plan& plan, const HostLink& link, CudaQueue& checks, CudaQueue& updates, cudaStream_t stream,
               uint32_t* gate);

  bool is_of(const Plan& plan) const { return version_ == plan.version; }
  void launch_checks(cudaStream_t stream) const;
  /// `begun` ← whether any update has been launched, also if this throws.
  void launch_updates(cudaStream_t stream, bool& begun) const;

  /// The parameters in the order in which their data are finished. `finished` returns the event that tells of it.
  const std::vector<uint32_t>& finishing_order() const { return finishing_order_; }
  cudaEvent_t finished(uint32_t parameter) const { return segments_[segment_of_[parameter]].done.get(); }

 private:
  struct Segment {
    GraphExec graph;
    Event done;
  };

  uint64_t version_ = 0;
  GraphExec checks_;
  std::vector<Segment> segments_;
  std::vector<size_t> segment_of_;  // the last segment that writes a parameter's data
  std::vector<uint32_t> finishing_order_;
};

}  // namespace root_optimizer::cuda
