// Stream capture, and the graphs that it makes.

#include <algorithm>

#include "device.h"

using emulator::call;
using emulator::Capture;
using emulator::Node;
using emulator::resolve;
using emulator::state;

namespace {

// Whether the origin waits, at its end, for everything that other streams were made to do.
bool is_joined(const Capture& capture) {
  std::vector<bool> reached(capture.nodes.size());
  std::vector<int> open = capture.origin->tail;
  while (!open.empty()) {
    const size_t node = size_t(open.back());
    open.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    open.insert(open.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](bool is_reached) { return is_reached; });
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call(__func__, [=] {
    if (!stream) return cudaErrorStreamCaptureUnsupported;
    if (!resolve(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return stream->capture->valid = false, cudaErrorStreamCaptureUnsupported;
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
    stream->capture->members = {stream};
    stream->tail.clear();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const auto end = [=] {
    *graph = nullptr;
    if (!stream || !resolve(stream)) return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return cudaErrorInvalidValue;
    if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    if (capture->origin != stream) {
      capture->valid = false;
      return cudaErrorStreamCaptureUnmatched;
    }
    const bool joined = is_joined(*capture);
    for (CUstream_st* member : capture->members) {
      member->capture = nullptr;
      member->tail.clear();
    }
    // Streams that wait for such an event later neither join a graph that is complete nor wait.
    for (CUevent_st* event : state().events) {
      if (event->capture == capture) event->capture = nullptr;
    }
    if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
    if (!joined) return cudaErrorStreamCaptureUnjoined;
    *graph = new CUgraph_st{std::make_shared<std::vector<Node>>(std::move(capture->nodes))};
    return cudaSuccess;
  };
  // The capture has ended even if this call fails.
  return call("", [=] {
    const cudaError_t status = end();
    const cudaError_t injected = emulator::enter("cudaStreamEndCapture");
    if (injected == cudaSuccess) return status;
    delete *graph;
    *graph = nullptr;
    return injected;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call(__func__, [=] {
    const CUstream_st* stream = resolve(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    *status = !stream->capture         ? cudaStreamCaptureStatusNone
              : stream->capture->valid ? cudaStreamCaptureStatusActive
                                       : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return call(__func__, [=] {
    if (!graph) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t handle) {
  return call(__func__, [=] {
    const CUstream_st* stream = resolve(handle);
    if (!stream || !executable) return cudaErrorInvalidResourceHandle;
    return stream->capture ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  return call(__func__, [=] {
    CUstream_st* stream = resolve(handle);
    if (!stream || !executable) return cudaErrorInvalidResourceHandle;
    if (stream->capture) return stream->capture->valid = false, cudaErrorStreamCaptureUnsupported;
    const auto& nodes = executable->nodes;
    const emulator::Replay replay{nodes, std::vector<bool>(nodes->size()), nodes->size()};
    emulator::push(*stream, {nullptr, nullptr, nullptr, std::make_shared<emulator::Replay>(replay)});
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call(__func__, [=] {
    delete executable;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call(__func__, [=] {
    delete graph;
    return cudaSuccess;
  });
}
