#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace emulator {

struct Device;

/// A point in a stream that others can wait for.
struct Marker {
  bool passed = false;
  double milliseconds = 0;
};

struct Node {
  std::function<void()> work;
  std::vector<int> after;  ///< the nodes that must have run before
};

/// A graph on its way through a stream, in whatever order its edges allow.
struct Replay {
  std::shared_ptr<const std::vector<Node>> nodes;
  std::vector<bool> ran;
  size_t left;
};

struct Operation {
  std::function<void()> work;
  std::shared_ptr<Marker> waits_for;
  std::shared_ptr<Marker> passes;
  std::shared_ptr<Replay> replay;
};

/// A graph that grows while streams are captured.
struct Capture {
  CUstream_st* origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  std::set<CUstream_st*> members;
  std::vector<Node> nodes;
  bool valid = true;
};

/// Appends to the stream's own queue.
void push(CUstream_st& stream, Operation operation);
/// Appends work to the stream, or to the graph that it is captured into.
void enqueue(CUstream_st& stream, std::function<void()> work);

/// Runs queued work in a random order that streams and events allow, until `is_done` returns true.
void run_until(const std::function<bool()>& is_done);
/// Runs a little of what is queued, as time passes on a device.
void run_some();
/// Runs everything that is queued on a device.
void drain(Device& device);

/// The stream behind a handle; null if there is none.
CUstream_st* resolve(cudaStream_t handle);
/// Whether a capture forbids this thread any call that waits for the device as a whole or changes it. Such a call
/// invalidates the capture.
bool is_forbidden_by_capture();

}  // namespace emulator

struct CUstream_st {
  CUstream_st(int device, bool blocking) : device(device), blocking(blocking) {}

  int device;
  bool blocking;  ///< ordered with the legacy stream
  uint64_t id = next_id++;
  std::deque<emulator::Operation> queue;
  std::shared_ptr<emulator::Capture> capture;
  std::vector<int> tail;  ///< what is captured next comes after these nodes

 private:
  static inline uint64_t next_id = 0;
};

struct CUevent_st {
  CUevent_st(int device, bool timing) : device(device), timing(timing) {}

  int device;
  bool timing;
  std::shared_ptr<emulator::Marker> marker;
  std::shared_ptr<emulator::Capture> capture;
  std::vector<int> tail;
};

struct CUgraph_st {
  std::shared_ptr<std::vector<emulator::Node>> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<emulator::Node>> nodes;
};
