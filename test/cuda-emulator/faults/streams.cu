// Streams, events and host buffers.

#include <algorithm>

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

constexpr int kSize = 256;
constexpr size_t kBytes = kSize * sizeof(float);

__global__ void scale(float* values, float factor) { values[threadIdx.x] *= factor; }
__global__ void add(float* sums, const float* values) { sums[threadIdx.x] += values[threadIdx.x]; }

cudaStream_t make_stream() {
  cudaStream_t stream;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

cudaEvent_t make_event() {
  cudaEvent_t event;
  require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  return event;
}

float* pinned(float value) {
  float* memory;
  require(cudaMallocHost(&memory, kBytes), "cudaMallocHost");
  std::fill_n(memory, kSize, value);
  return memory;
}

void order(cudaStream_t first, cudaStream_t then) {
  const cudaEvent_t event = make_event();
  require(cudaEventRecord(event, first), "cudaEventRecord");
  require(cudaStreamWaitEvent(then, event), "cudaStreamWaitEvent");
}

void copy(float* to, const float* from, cudaMemcpyKind kind, cudaStream_t stream) {
  require(cudaMemcpyAsync(to, from, kBytes, kind, stream), "cudaMemcpyAsync");
}

bool all_are(const float* values, float expected) {
  return std::all_of(values, values + kSize, [=](float value) { return value == expected; });
}

bool waits_for_other_stream(bool broken) {
  float* values = device_copy(std::vector<float>(kSize, 1));
  const cudaStream_t transfer = make_stream(), compute = make_stream();
  copy(values, pinned(3), cudaMemcpyHostToDevice, transfer);
  if (!broken) order(transfer, compute);
  launch("scale", scale, 1, kSize, 0, compute, values, 2.0f);
  float* result = pinned(0);
  copy(result, values, cudaMemcpyDeviceToHost, compute);
  require(cudaStreamSynchronize(compute), "cudaStreamSynchronize");
  return all_are(result, 6);
}

bool keeps_host_buffer(bool broken) {
  float* values = device_array<float>(kSize);
  float* buffer = pinned(3);
  const cudaStream_t stream = make_stream();
  copy(values, buffer, cudaMemcpyHostToDevice, stream);
  const cudaEvent_t copied = make_event();
  require(cudaEventRecord(copied, stream), "cudaEventRecord");
  if (!broken) require(cudaEventSynchronize(copied), "cudaEventSynchronize");
  std::fill_n(buffer, kSize, 4.0f);
  require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return all_are(host_copy(values, kSize).data(), 3);
}

bool waits_before_reading(bool broken) {
  float* values = device_copy(std::vector<float>(kSize, 3));
  float* buffer = pinned(0);
  const cudaStream_t stream = make_stream();
  copy(buffer, values, cudaMemcpyDeviceToHost, stream);
  if (!broken) require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return all_are(buffer, 3);
}

bool stages_pageable_memory(bool) {
  float* values = device_array<float>(kSize);
  std::vector<float> buffer(kSize, 3);
  const cudaStream_t stream = make_stream();
  copy(values, buffer.data(), cudaMemcpyHostToDevice, stream);
  std::fill(buffer.begin(), buffer.end(), 4.0f);
  copy(buffer.data(), values, cudaMemcpyDeviceToHost, stream);
  return all_are(buffer.data(), 3);
}

bool frees_in_order(bool broken) {
  const cudaStream_t stream = make_stream(), other = make_stream();
  float *values, *result = pinned(0);
  require(cudaMallocAsync(&values, kBytes, stream), "cudaMallocAsync");
  copy(values, pinned(3), cudaMemcpyHostToDevice, stream);
  order(stream, other);
  copy(result, values, cudaMemcpyDeviceToHost, other);
  if (!broken) order(other, stream);
  require(cudaFreeAsync(values, stream), "cudaFreeAsync");
  require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  return all_are(result, 3);
}

// Two branches of a graph, of which the second reads what the first one writes.
bool joins_branches(bool broken) {
  float* values = device_copy(std::vector<float>(kSize, 1));
  float* sums = device_copy(std::vector<float>(kSize, 0));
  float* input = pinned(1);
  const cudaStream_t main = make_stream(), side = make_stream();
  require(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  order(main, side);
  copy(values, input, cudaMemcpyHostToDevice, side);
  launch("scale", scale, 1, kSize, 0, side, values, 2.0f);
  if (!broken) order(side, main);
  launch("add", add, 1, kSize, 0, main, sums, values);
  if (broken) order(side, main);
  cudaGraph_t graph;
  require(cudaStreamEndCapture(main, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t executable;
  require(cudaGraphInstantiate(&executable, graph), "cudaGraphInstantiate");
  require(cudaGraphDestroy(graph), "cudaGraphDestroy");
  for (const float value : {1.0f, 2.0f, 4.0f}) {
    std::fill_n(input, kSize, value);
    require(cudaGraphLaunch(executable, main), "cudaGraphLaunch");
    require(cudaStreamSynchronize(main), "cudaStreamSynchronize");
  }
  require(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  return all_are(host_copy(sums, kSize).data(), 14);
}

}  // namespace

const std::vector<Case> stream_cases = {
    {"an event between two streams", true, waits_for_other_stream},
    {"a host buffer kept until it is copied", true, keeps_host_buffer},
    {"a copy waited for before it is read", true, waits_before_reading},
    {"pageable memory", false, stages_pageable_memory},
    {"memory freed after its last use", true, frees_in_order},
    {"branches of a graph joined before use", true, joins_branches},
};
