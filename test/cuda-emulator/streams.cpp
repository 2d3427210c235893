#include "streams.h"

#include <algorithm>
#include <chrono>

#include "device.h"

namespace emulator {

namespace {

double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_ready(const CUstream_st& stream) {
  if (stream.queue.empty()) return false;
  const Operation& head = stream.queue.front();
  return !head.waits_for || head.waits_for->passed;
}

// Runs one node whose predecessors have all run.
void run_node(Replay& replay, Random& random) {
  const std::vector<Node>& nodes = *replay.nodes;
  std::vector<size_t> candidates;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& after = nodes[i].after;
    const auto has_run = [&](int node) { return replay.ran[size_t(node)]; };
    if (!replay.ran[i] && std::all_of(after.begin(), after.end(), has_run)) candidates.push_back(i);
  }
  const size_t chosen = candidates[random.below(candidates.size())];
  nodes[chosen].work();
  replay.ran[chosen] = true;
  --replay.left;
}

void run_head(CUstream_st& stream) {
  const Operation& head = stream.queue.front();
  const bool works = state().devices[size_t(stream.device)].error == cudaSuccess;
  if (works && head.work) head.work();
  if (works && head.replay && head.replay->left > 0) {
    run_node(*head.replay, state().random);
    if (head.replay->left > 0) return;
  }
  if (head.passes) {
    head.passes->passed = true;
    head.passes->milliseconds = now();
  }
  stream.queue.pop_front();
}

bool run_one() {
  std::vector<CUstream_st*> ready;
  for (CUstream_st* stream : state().streams) {
    if (is_ready(*stream)) ready.push_back(stream);
  }
  if (ready.empty()) return false;
  // Streams are ordered by address, which differs from run to run.
  std::sort(ready.begin(), ready.end(), [](auto* a, auto* b) { return a->id < b->id; });
  run_head(*ready[state().random.below(ready.size())]);
  return true;
}

}  // namespace

void run_until(const std::function<bool()>& is_done) {
  while (!is_done() && run_one()) {
  }
}

void run_some() {
  for (uint32_t count = 1 + state().random.below(4); count > 0; --count) run_one();
}

void drain(Device& device) {
  run_until([&] {
    return std::all_of(state().streams.begin(), state().streams.end(),
                       [&](CUstream_st* stream) { return stream->device != device.id || stream->queue.empty(); });
  });
}

CUstream_st* resolve(cudaStream_t handle) {
  if (!handle) return device().legacy;
  return state().streams.count(handle) ? handle : nullptr;
}

// The legacy stream waits for all blocking streams of its device, and they wait for it.
static void order_with_legacy(CUstream_st& stream) {
  if (!stream.blocking) return;
  CUstream_st* legacy = state().devices[size_t(stream.device)].legacy;
  if (&stream != legacy) {
    run_until([&] { return legacy->queue.empty(); });
    return;
  }
  for (CUstream_st* other : state().streams) {
    if (other == legacy || !other->blocking || other->device != stream.device) continue;
    run_until([&] { return other->queue.empty(); });
  }
}

void push(CUstream_st& stream, Operation operation) {
  order_with_legacy(stream);
  stream.queue.push_back(std::move(operation));
}

void enqueue(CUstream_st& stream, std::function<void()> work) {
  if (!stream.capture) return push(stream, {std::move(work), nullptr, nullptr, nullptr});
  auto& nodes = stream.capture->nodes;
  nodes.push_back({std::move(work), stream.tail});
  stream.tail = {int(nodes.size()) - 1};
}

bool is_forbidden_by_capture() {
  for (const CUstream_st* stream : state().streams) {
    const auto& capture = stream->capture;
    if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread != std::this_thread::get_id()) continue;
    capture->valid = false;
    return true;
  }
  return false;
}

}  // namespace emulator

using emulator::call;
using emulator::is_forbidden_by_capture;
using emulator::Marker;
using emulator::push;
using emulator::resolve;
using emulator::run_until;
using emulator::state;

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return call(__func__, [=] {
    if (flags & ~cudaStreamNonBlocking) return cudaErrorInvalidValue;
    *stream = new CUstream_st(emulator::current_device, flags != cudaStreamNonBlocking);
    state().streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(__func__, [=] { return cudaStreamCreateWithPriority(stream, flags, 0); });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(__func__, [=] {
    if (!stream || !resolve(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      stream->capture->valid = false;
      stream->capture->members.erase(stream);
    }
    run_until([=] { return stream->queue.empty(); });
    state().streams.erase(stream);
    delete stream;
    return emulator::device().error;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      stream->capture->valid = false;
      return cudaErrorStreamCaptureUnsupported;
    }
    run_until([=] { return stream->queue.empty(); });
    emulator::settle_pools();
    return state().devices[size_t(stream->device)].error;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      stream->capture->valid = false;
      return cudaErrorStreamCaptureUnsupported;
    }
    emulator::run_some();
    const cudaError_t error = state().devices[size_t(stream->device)].error;
    return error == cudaSuccess && !stream->queue.empty() ? cudaErrorNotReady : error;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return call(__func__, [] {
    if (is_forbidden_by_capture()) return cudaErrorStreamCaptureUnsupported;
    emulator::Device& device = emulator::device();
    emulator::drain(device);
    emulator::settle_pools();
    const std::string message = state().memory.inspect_freed(device.id);
    if (!message.empty()) emulator::report_fault(device, cudaErrorIllegalAddress, message);
    return device.error;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream || !state().events.count(event)) return cudaErrorInvalidResourceHandle;
    if (event->capture) {
      if (stream->capture && stream->capture != event->capture) return cudaErrorStreamCaptureMerge;
      if (!stream->capture) {
        stream->capture = event->capture;
        stream->capture->members.insert(stream);
        stream->tail.clear();
      }
      stream->tail.insert(stream->tail.end(), event->tail.begin(), event->tail.end());
      return cudaSuccess;
    }
    if (!event->marker) return cudaSuccess;
    if (stream->capture) {
      stream->capture->valid = false;
      return cudaErrorStreamCaptureIsolation;
    }
    push(*stream, {nullptr, event->marker, nullptr, nullptr});
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(__func__, [=] {
    *event = new CUevent_st(emulator::current_device, !(flags & cudaEventDisableTiming));
    state().events.insert(*event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(__func__, [=] {
    if (!state().events.erase(event)) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream || !state().events.count(event)) return cudaErrorInvalidResourceHandle;
    if (event->device != stream->device) return cudaErrorInvalidResourceHandle;
    event->capture = stream->capture;
    event->tail = stream->tail;
    event->marker = nullptr;
    if (stream->capture) return cudaSuccess;
    event->marker = std::make_shared<Marker>();
    push(*stream, {nullptr, nullptr, event->marker, nullptr});
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(__func__, [=] {
    if (!state().events.count(event)) return cudaErrorInvalidResourceHandle;
    if (event->capture) return cudaErrorCapturedEvent;
    const auto marker = event->marker;
    if (marker) run_until([&] { return marker->passed; });
    emulator::settle_pools();
    return emulator::device().error;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(__func__, [=] {
    if (!state().events.count(event)) return cudaErrorInvalidResourceHandle;
    if (event->capture) return cudaErrorCapturedEvent;
    const auto marker = event->marker;
    if (marker && !marker->passed) emulator::run_some();
    if (emulator::device().error != cudaSuccess) return emulator::device().error;
    return marker && !marker->passed ? cudaErrorNotReady : cudaSuccess;
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(__func__, [=] {
    for (const cudaEvent_t event : {start, end}) {
      if (!state().events.count(event) || !event->marker || !event->timing) return cudaErrorInvalidResourceHandle;
      if (!event->marker->passed) return cudaErrorNotReady;
    }
    *milliseconds = float(end->marker->milliseconds - start->marker->milliseconds);
    return cudaSuccess;
  });
}
