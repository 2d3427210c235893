#include "captured_plan.h"

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

// For each job, the parameters that no later job writes.
static std::vector<std::vector<uint32_t>> parameters_finished(const Plan& plan) {
  std::vector<size_t> last(plan.parameters, 0);
  for (size_t job = 0; job < plan.updates.size(); ++job) {
    for (const uint32_t p : plan.updates[job].parameters) last[p] = job;
  }
  std::vector<std::vector<uint32_t>> finished(plan.updates.size());
  for (uint32_t p = 0; p < last.size(); ++p) finished[last[p]].push_back(p);
  return finished;
}

CapturedPlan::CapturedPlan(const Plan& plan, CudaQueue& checks, CudaQueue& updates, cudaStream_t stream, uint32_t* gate)
    : version_(plan.version), job_of_(plan.parameters, 0) {
  checks_ = capture(stream, [&] {
    require(cudaMemsetAsync(plan.flags, 0, plan.parameters * sizeof(uint32_t), stream), "cudaMemsetAsync");
    require(cudaMemsetAsync(gate, 0, sizeof(uint32_t), stream), "cudaMemsetAsync");
    for (const Job& job : plan.checks) enqueue(job, checks);
    launch("close_gate", close_gate, 1, 256, 0, stream, static_cast<const uint32_t*>(plan.flags),
           uint32_t(plan.parameters), gate);
  });

  const std::vector<std::vector<uint32_t>> finished = parameters_finished(plan);
  for (size_t job = 0; job < plan.updates.size(); ++job) {
    updates_.push_back({.graph = capture(stream, [&] { enqueue(plan.updates[job], updates); }), .done = make_event()});
    for (const uint32_t p : finished[job]) {
      job_of_[p] = job;
      finishing_order_.push_back(p);
    }
  }
}

void CapturedPlan::launch_checks(cudaStream_t stream) const {
  require(cudaGraphLaunch(checks_.get(), stream), "cudaGraphLaunch of the checks");
}

void CapturedPlan::launch_updates(cudaStream_t stream, bool& begun) const {
  for (const Update& update : updates_) {
    require(cudaGraphLaunch(update.graph.get(), stream), "cudaGraphLaunch of the updates");
    begun = true;
    require(cudaEventRecord(update.done.get(), stream), "cudaEventRecord");
  }
}

}  // namespace root_optimizer::cuda
