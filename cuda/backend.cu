// The device behind the seam: its streams, its pool of memory and the graphs that steps are replayed from.

#include "../native/backend.h"

#include <algorithm>
#include <optional>
#include <string>

#include "../native/error.h"
#include "batch.cuh"
#include "host_link.h"
#include "queue.h"

namespace root_optimizer {

namespace {

// Scratch that a batch may fill at most, unless a single matrix needs more: enough for eleven of 2048 × 8192.
constexpr size_t kBatchBytes = size_t(1) << 30;

// Parameters whose data go to the host together, at least, in whole jobs: what is ready leaves while the rest is
// computed.
constexpr int64_t kSegmentBytes = int64_t(32) << 20;

constexpr const char* kLost =
    " while a step was being applied: what the optimizer held is lost. Dispose of it and load a checkpoint into "
    "another";

__global__ void close_gate(const uint32_t* flags, uint32_t count, uint32_t* gate) {
  uint32_t raised = 0;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) raised |= flags[i];
  if (raised != 0) *gate = 1;
}

class CudaBackend final : public Backend {
 public:
  /// Made, as it is destroyed, within a scope on its device.
  CudaBackend(int index, Precision precision) : index_(index), precision_(precision) {
    pool_ = make_pool(index_);
    stream_ = make_stream();
    side_stream_ = make_stream();
    checked_ = make_event();
    read_ = make_event();
    finished_ = make_event();
    gate_ = static_cast<uint32_t*>(allocate_zeroed_from(pool_.get(), 2 * sizeof(uint32_t), "a step", stream_.get()));
  }

  ~CudaBackend() override {
    const OnDevice scope(index_, std::nothrow);
    cudaStreamSynchronize(stream_.get());
    cudaStreamSynchronize(side_stream_.get());
    if (link_) link_->release(stream_.get());
    if (scratch_ != nullptr) cudaFreeAsync(scratch_, stream_.get());
    if (gate_ != nullptr) cudaFreeAsync(gate_, stream_.get());
    cudaStreamSynchronize(stream_.get());
    // While the device's context is there.
    flags_ = {};
    checks_ = {};
    segments_.clear();
    link_.reset();
    finished_ = {};
    read_ = {};
    checked_ = {};
    side_stream_ = {};
    stream_ = {};
    pool_ = {};
  }

  int threads() const override { return 1; }
  Arithmetic arithmetic() const override { return cuda_arithmetic(precision_); }
  bool shares_host_memory() const override { return false; }
  int64_t batch_limit(const Footprint& footprint) const override {
    const size_t bytes = std::max<size_t>(CudaQueue::scratch_bytes(precision_, footprint), 1);
    return std::clamp<int64_t>(int64_t(kBatchBytes / bytes), 1, kTableEntries);
  }
  size_t held_bytes() const override { return arena_.capacity() + (link_ ? link_->bytes() : 0); }
  void* stream() const override { return stream_.get(); }

  void* allocate(size_t bytes) override {
    const OnDevice scope(index_);
    void* memory = allocate_zeroed_from(pool_.get(), std::max<size_t>(bytes, 1), "an optimizer's state", stream_.get());
    synchronize();
    return memory;
  }

  void release(void* memory) noexcept override {
    const OnDevice scope(index_, std::nothrow);
    cudaFreeAsync(memory, stream_.get());
  }

  void read(void* host, const void* device, size_t bytes) override {
    if (bytes == 0) return;
    require_whole();
    const OnDevice scope(index_);
    check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync to the host");
    synchronize();
  }

  void write(void* device, const void* host, size_t bytes) override {
    if (bytes == 0) return;
    require_whole();
    const OnDevice scope(index_);
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_.get()), "cudaMemcpyAsync to the device");
    synchronize();
  }

  void run(const std::vector<Job>& jobs) override {
    require_whole();
    const OnDevice scope(index_);
    reserve(jobs);
    CudaQueue queue(precision_, stream_.get(), arena_, open_gate());
    for (const Job& job : jobs) enqueue(job, queue);
    synchronize();
  }

  void hold(const std::vector<int64_t>& sizes) override {
    const OnDevice scope(index_);
    link_.emplace(pool_.get(), sizes, stream_.get());
    flags_ = make_pinned(std::max<size_t>(sizes.size(), 1) * sizeof(uint32_t));
    synchronize();
  }

  std::vector<Arrays> held(const std::vector<Arrays>&) const override { return link_->arrays(); }

  std::vector<uint32_t> step(const Plan& plan, const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    if (!host.empty()) link_->prepare();
    prepare(plan);
    if (!host.empty()) link_->upload(host, stream_.get());
    check(cudaGraphLaunch(checks_.get(), stream_.get()), "cudaGraphLaunch of the checks");
    check(cudaEventRecord(checked_.get(), stream_.get()), "cudaEventRecord");
    bool begun = false;
    try {
      return apply(plan, host, begun);
    } catch (const Error& error) {
      if (!begun) throw;
      lost_ = error.what();
      throw Error(error.code(), lost_ + kLost);
    } catch (const std::exception&) {
      if (!begun) throw;
      lost_ = "The host ran out of memory";
      throw Error("ERR_OUT_OF_MEMORY", lost_ + kLost);
    }
  }

  void read_held(const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    link_->prepare();
    synchronize();
    std::vector<uint32_t> order;
    for (uint32_t p = 0; p < host.size(); ++p) order.push_back(p);
    link_->download(host, order, [](uint32_t) { return nullptr; });
  }

  void write_held(const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    link_->prepare();
    synchronize();
    link_->upload_data(host, stream_.get());
    synchronize();
  }

  void zero_held_gradients() override {
    require_whole();
    const OnDevice scope(index_);
    link_->zero_gradients(stream_.get());
    synchronize();
  }

 private:
  /// Updates that end in the data of some parameters.
  struct Segment {
    GraphExec graph;
    Event done;
  };

  // A sleeping wait, where cudaStreamSynchronize would keep a processor busy.
  void synchronize() {
    check(cudaEventRecord(finished_.get(), stream_.get()), "cudaEventRecord");
    check(cudaEventSynchronize(finished_.get()), "cudaEventSynchronize");
  }

  void require_whole() const {
    if (!lost_.empty()) throw Error("ERR_CUDA", lost_ + kLost);
  }

  // The part of a step that changes what outlives it. `begun` tells whether any of that has been launched.
  std::vector<uint32_t> apply(const Plan& plan, const std::vector<Arrays>& host, bool& begun) {
    for (const Segment& segment : segments_) {
      check(cudaGraphLaunch(segment.graph.get(), stream_.get()), "cudaGraphLaunch of the updates");
      begun = true;
      check(cudaEventRecord(segment.done.get(), stream_.get()), "cudaEventRecord");
    }
    const std::vector<uint32_t> flags = read_flags(plan);
    const bool applied = std::all_of(flags.begin(), flags.end(), [](uint32_t flag) { return flag == 0; });
    if (applied && !host.empty()) {
      link_->download(host, finishing_order_, [&](uint32_t p) { return segments_[segment_of_[p]].done.get(); });
    }
    synchronize();
    return flags;
  }

  // gate_[0]: of a step. gate_[1] is never written.
  const uint32_t* open_gate() const { return gate_ + 1; }

  void enqueue(const Job& job, CudaQueue& queue) {
    queue.begin();
    try {
      job.enqueue(queue);
    } catch (const Error& error) {
      if (job.footprint.tall == 0) throw;
      const std::string shape = std::to_string(job.footprint.tall) + " × " + std::to_string(job.footprint.narrow);
      throw Error(error.code(), error.what() + (" for matrices of " + shape));
    }
  }

  void reserve(const std::vector<Job>& jobs) {
    const Job* largest = nullptr;
    size_t bytes = 0;
    for (const Job& job : jobs) {
      const size_t needed = CudaQueue::scratch_bytes(precision_, job.footprint);
      if (needed > bytes) largest = &job;
      bytes = std::max(bytes, needed);
    }
    if (bytes <= arena_.capacity()) return;
    prepared_ = 0;
    arena_.reset(nullptr, 0);
    if (scratch_ != nullptr) {
      check(cudaFreeAsync(std::exchange(scratch_, nullptr), stream_.get()), "cudaFreeAsync");
      synchronize();  // which gives it back, so that there need not be room for both
    }
    const Footprint& f = largest->footprint;
    const std::string what = "scratch for " + std::to_string(f.items) + " matrices of " + std::to_string(f.tall) +
                             " × " + std::to_string(f.narrow);
    scratch_ = allocate_from(pool_.get(), bytes, what.c_str(), stream_.get());
    arena_.reset(scratch_, bytes);
  }

  template <typename Enqueue>
  GraphExec capture(Enqueue enqueue_all) {
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t captured = nullptr;
    try {
      enqueue_all();
    } catch (...) {
      cudaStreamEndCapture(stream_.get(), &captured);
      const Graph incomplete(captured);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream_.get(), &captured), "cudaStreamEndCapture");
    const Graph graph(captured);
    cudaGraphExec_t executable;
    check(cudaGraphInstantiate(&executable, graph.get(), 0), "cudaGraphInstantiate");
    GraphExec owned(executable);
    check(cudaGraphUpload(executable, stream_.get()), "cudaGraphUpload");  // takes its memory before a step has begun
    return owned;
  }

  // Captures a plan's launches, once for all steps that follow it.
  void prepare(const Plan& plan) {
    if (plan.version == prepared_) return;
    prepared_ = 0;
    reserve(plan.updates);
    const size_t count = link_->arrays().size();
    CudaQueue check_queue(precision_, stream_.get(), arena_, open_gate());
    checks_ = capture([&] {
      check(cudaMemsetAsync(plan.flags, 0, count * sizeof(uint32_t), stream_.get()), "cudaMemsetAsync");
      check(cudaMemsetAsync(gate_, 0, sizeof(uint32_t), stream_.get()), "cudaMemsetAsync");
      for (const Job& job : plan.checks) enqueue(job, check_queue);
      launch("close_gate", close_gate, 1, 256, 0, stream_.get(), static_cast<const uint32_t*>(plan.flags),
             uint32_t(count), gate_);
    });

    segments_.clear();
    finishing_order_.clear();
    segment_of_.assign(count, 0);
    const std::vector<std::vector<uint32_t>> finished = parameters_finished(plan.updates);
    CudaQueue queue(precision_, stream_.get(), arena_, gate_);
    for (size_t job = 0; job < plan.updates.size();) {
      int64_t bytes = 0;
      Segment segment;
      segment.graph = capture([&] {
        while (job < plan.updates.size() && bytes < kSegmentBytes) {
          enqueue(plan.updates[job], queue);
          for (const uint32_t p : finished[job]) {
            segment_of_[p] = segments_.size();
            finishing_order_.push_back(p);
            bytes += link_->bytes_of(p);
          }
          ++job;
        }
      });
      segment.done = make_event();
      segments_.push_back(std::move(segment));
    }
    synchronize();
    prepared_ = plan.version;
  }

  // For each job the parameters of which it is the last.
  std::vector<std::vector<uint32_t>> parameters_finished(const std::vector<Job>& jobs) const {
    std::vector<size_t> last(link_->arrays().size(), 0);
    for (size_t job = 0; job < jobs.size(); ++job) {
      for (const uint32_t p : jobs[job].parameters) last[p] = job;
    }
    std::vector<std::vector<uint32_t>> finished(jobs.size());
    for (uint32_t p = 0; p < last.size(); ++p) finished[last[p]].push_back(p);
    return finished;
  }

  // While the updates run: they leave the flags alone.
  std::vector<uint32_t> read_flags(const Plan& plan) {
    const size_t count = link_->arrays().size();
    auto* const flags = static_cast<uint32_t*>(flags_.get());
    check(cudaStreamWaitEvent(side_stream_.get(), checked_.get(), 0), "cudaStreamWaitEvent");
    check(cudaMemcpyAsync(flags, plan.flags, count * sizeof(uint32_t), cudaMemcpyDeviceToHost, side_stream_.get()),
          "cudaMemcpyAsync of the flags");
    check(cudaEventRecord(read_.get(), side_stream_.get()), "cudaEventRecord");
    check(cudaEventSynchronize(read_.get()), "cudaEventSynchronize");
    return {flags, flags + count};
  }

  const int index_;
  const Precision precision_;
  Pool pool_;
  Stream stream_;       // in whose order steps run
  Stream side_stream_;  // brings the flags to the host meanwhile
  Event checked_, read_, finished_;
  uint32_t* gate_ = nullptr;
  void* scratch_ = nullptr;
  Arena arena_;
  std::optional<HostLink> link_;
  Pinned flags_;
  std::string lost_;  // the failure of a step that had begun to change what is held; empty: there was none

  uint64_t prepared_ = 0;  // the version of the plan that the graphs are of; 0: none
  GraphExec checks_;
  std::vector<Segment> segments_;
  std::vector<size_t> segment_of_;         // each parameter's, in which its data are written for the last time
  std::vector<uint32_t> finishing_order_;  // of parameters
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int index, Precision precision) {
  const std::string obstacle = cuda_obstacle(index);
  if (!obstacle.empty()) throw Error("ERR_DEVICE_UNAVAILABLE", "cuda:" + std::to_string(index) + ": " + obstacle);
  const OnDevice scope(index);
  return std::make_unique<CudaBackend>(index, precision);
}

}  // namespace root_optimizer
