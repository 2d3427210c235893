#include "captured_plan.h"

#include <algorithm>
#include <string>

#include "../native/error.h"
#include "launch.cuh"

namespace root_optimizer::cuda {

__global__ void close_gate(const uint32_t* flags, uint32_t count, uint32_t* gate) {
  uint32_t raised = 0;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) raised |= flags[i];
  if (raised != 0) *gate = 1;
}

std::string matrices_of(const Job& job) {
  std::string text;
  for (const Footprint& f : job.footprints) {
    if (f.matrix_operands == 0) continue;
    text += (text.empty() ? " for " : ", ") + std::to_string(f.count) + " matrices of " + std::to_string(f.long_side) +
            " × " + std::to_string(f.short_side);
  }
  return text;
}

void enqueue(const Job& job, CudaQueue& queue) {
  queue.begin();
  try {
    job.enqueue(queue);
  } catch (const Error& error) {
    throw Error(error.code(), error.what() + matrices_of(job));
  }
}

Graph record(cudaStream_t stream, const std::function<void()>& enqueue_all) {
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t captured = nullptr;
  try {
    enqueue_all();
  } catch (...) {
    cudaStreamEndCapture(stream, &captured);
    const Graph incomplete(captured);
    cudaGetLastError();
    throw;
  }
  require(cudaStreamEndCapture(stream, &captured), "cudaStreamEndCapture");
  return Graph(captured);
}

static GraphExec capture(cudaStream_t stream, const std::function<void()>& enqueue_all) {
  const Graph graph = record(stream, enqueue_all);
  cudaGraphExec_t executable;
  require(cudaGraphInstantiate(&executable, graph.get(), 0), "cudaGraphInstantiate");
  GraphExec owned(executable);
  require(cudaGraphUpload(executable, stream), "cudaGraphUpload");  // takes the graph's memory before a step has begun
  return owned;
}

CapturedPlan::CapturedPlan(const Plan& plan, CudaQueue& checks, CudaQueue& updates, cudaStream_t stream, uint32_t* gate)
    : version_(plan.version), jobs_(plan.updates.size()) {
  for (size_t job = 0; job < jobs_.size(); ++job) {
    jobs_[job].check = capture(stream, [&] {
      if (job == 0) {
        require(cudaMemsetAsync(plan.flags, 0, plan.parameters * sizeof(uint32_t), stream), "cudaMemsetAsync");
        require(cudaMemsetAsync(gate, 0, sizeof(uint32_t), stream), "cudaMemsetAsync");
      }
      enqueue(plan.checks[job], checks);
      if (job + 1 < jobs_.size()) return;
      launch("close_gate", close_gate, 1, 256, 0, stream, static_cast<const uint32_t*>(plan.flags),
             uint32_t(plan.parameters), gate);
    });
  }
  for (size_t job = 0; job < jobs_.size(); ++job) {
    jobs_[job].update = capture(stream, [&] { enqueue(plan.updates[job], updates); });
    jobs_[job].done = make_event();
  }

  std::vector<size_t> first(plan.parameters, jobs_.size());
  std::vector<size_t> last(plan.parameters, 0);
  for (size_t job = 0; job < jobs_.size(); ++job) {
    for (const uint32_t p : plan.updates[job].parameters) {
      first[p] = std::min(first[p], job);
      last[p] = job;
    }
  }
  for (uint32_t p = 0; p < plan.parameters; ++p) {
    if (first[p] == jobs_.size()) continue;
    jobs_[first[p]].begins.push_back(p);
    jobs_[last[p]].finishes.push_back(p);
  }
}

void CapturedPlan::launch_check(size_t job, cudaStream_t stream) const {
  require(cudaGraphLaunch(jobs_[job].check.get(), stream), "cudaGraphLaunch of the checks");
}

void CapturedPlan::launch_update(size_t job, cudaStream_t stream) const {
  require(cudaGraphLaunch(jobs_[job].update.get(), stream), "cudaGraphLaunch of the updates");
}

}  // namespace root_optimizer::cuda
