// The device behind the seam: its streams, its pool of memory, and the order of a step.

#include "../native/backend.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>

#include "../native/devices.h"
#include "../native/error.h"
#include "batch.cuh"
#include "captured_plan.h"
#include "host_link.h"
#include "queue.h"

namespace root_optimizer {

namespace cuda {

// The most scratch that a job may fill, unless a single matrix needs more: enough for eleven of 2048 × 8192.
constexpr size_t kJobBytes = size_t(1) << 30;
constexpr int64_t kMostMatrices = 65535;
// The most data that a job may change if they go to the host, so that they leave while the next job runs.
constexpr int64_t kTravellingBytes = int64_t(32) << 20;

constexpr const char* kLost =
    " while a step was being applied: what the optimizer held is lost. Dispose of it and load a checkpoint into "
    "another";

static bool all_clear(const std::vector<uint32_t>& flags) {
  return std::all_of(flags.begin(), flags.end(), [](uint32_t flag) { return flag == 0; });
}

class CudaBackend final : public Backend, private ParameterStore {
 public:
  /// To be constructed within a scope on its device. The destructor opens one of its own.
  CudaBackend(int index, Arithmetic arithmetic)
      : index_(index), arithmetic_(arithmetic), precision_(arithmetic.matrix) {
    pool_ = make_pool(index_);
    stream_ = make_stream();
    side_stream_ = make_stream();
    checked_ = make_event();
    read_ = make_event();
    finished_ = make_event();
    gate_ = static_cast<uint32_t*>(allocate_zeroed_from(pool_.get(), 2 * sizeof(uint32_t), "a step", stream_.get()));
  }

  ~CudaBackend() {
    const OnDevice scope(index_, std::nothrow);
    cudaStreamSynchronize(stream_.get());
    cudaStreamSynchronize(side_stream_.get());
    if (link_) link_->release(stream_.get());
    if (scratch_ != nullptr) cudaFreeAsync(scratch_, stream_.get());
    if (gate_ != nullptr) cudaFreeAsync(gate_, stream_.get());
    if (notes_ != nullptr) cudaFreeAsync(notes_, stream_.get());
    if (table_memory_ != nullptr) cudaFreeAsync(table_memory_, stream_.get());
    cudaStreamSynchronize(stream_.get());
    // These handles have to go while the device's context is there.
    flags_ = {};
    captured_ = {};
    link_.reset();
    finished_ = {};
    read_ = {};
    checked_ = {};
    side_stream_ = {};
    stream_ = {};
    pool_ = {};
  }

  Arithmetic arithmetic() const override { return arithmetic_; }
  bool takes(std::span<const Footprint> job, bool travels) const override {
    int64_t data = 0;
    // A launch for all matrices of a batch counts them in the grid's second dimension.
    for (const Footprint& f : job)
      if (f.count > kMostMatrices) return false;
    for (const Footprint& f : job) data += f.long_side * f.short_side * f.count * int64_t(sizeof(float));
    return CudaQueue::scratch_bytes(precision_, job) <= kJobBytes && (!travels || data <= kTravellingBytes);
  }
  size_t memory_bytes() const override {
    return arena_.capacity() + table_capacity_ + note_count_ * sizeof(CheckNote) + (link_ ? link_->bytes() : 0);
  }

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
    require(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_.get()), "cudaMemcpyAsync to the host");
    synchronize();
  }

  void write(void* device, const void* host, size_t bytes) override {
    if (bytes == 0) return;
    require_whole();
    const OnDevice scope(index_);
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_.get()),
            "cudaMemcpyAsync to the device");
    synchronize();
  }

  ParameterStore* make_store(const std::vector<int64_t>& sizes, size_t gradients) override {
    const OnDevice scope(index_);
    if (!link_ || !link_->is_for(sizes, gradients)) {
      captured_ = {};
      if (link_) link_->release(stream_.get());
      link_.reset();
      link_.emplace(pool_.get(), sizes, gradients, stream_.get());
      synchronize();
    }
    arrays = link_->arrays();
    stream = stream_.get();
    return this;
  }

  std::vector<uint32_t> run(const Plan& plan) override {
    require_whole();
    const OnDevice scope(index_);
    prepare(plan);
    CudaQueue queue = queue_behind(open_gate(), stream_.get());
    require(cudaMemsetAsync(plan.flags, 0, plan.parameters * sizeof(uint32_t), stream_.get()), "cudaMemsetAsync");
    for (const Job& job : plan.checks) enqueue(job, queue);
    std::vector<uint32_t> flags(plan.parameters);
    read(flags.data(), plan.flags, flags.size() * sizeof(uint32_t));
    if (!all_clear(flags)) return flags;
    for (const Job& job : plan.updates) enqueue(job, queue);
    synchronize();
    return flags;
  }

  std::vector<uint32_t> step(const Plan& plan, const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    if (!host.empty()) link_->prepare();
    capture(plan);
    for (size_t job = 0; job < captured_.jobs(); ++job) {
      if (!host.empty()) link_->upload_gradients(host, captured_.begins(job), stream_.get());
      captured_.launch_check(job, stream_.get());
    }
    require(cudaEventRecord(checked_.get(), stream_.get()), "cudaEventRecord");
    bool begun = false;
    try {
      return apply(plan, host, begun);
    } catch (const Error& error) {
      await_flags();
      if (!begun) throw;
      is_lost_ = true;
      lost_ = error.what();
      throw Error(error.code(), lost_ + kLost);
    } catch (const std::exception&) {
      await_flags();
      if (!begun) throw;
      is_lost_ = true;
      lost_ = "The host ran out of memory";
      throw Error("ERR_OUT_OF_MEMORY", lost_ + kLost);
    }
  }

 private:
  void read_data(const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    link_->prepare();
    synchronize();
    link_->download(host, all(host), finished_.get());
  }

  void write_data(const std::vector<Arrays>& host) override {
    require_whole();
    const OnDevice scope(index_);
    link_->prepare();
    synchronize();
    link_->upload_data(host, all(host), stream_.get());
    synchronize();
  }

  void zero_gradients() override {
    require_whole();
    const OnDevice scope(index_);
    link_->zero_gradients(stream_.get());
    synchronize();
  }

  void synchronize() {
    require(cudaEventRecord(finished_.get(), stream_.get()), "cudaEventRecord");
    wait_for(finished_.get());
  }

  void require_whole() const {
    if (is_lost_) throw Error("ERR_CUDA", lost_ + kLost);
  }

  static std::vector<uint32_t> all(const std::vector<Arrays>& host) {
    std::vector<uint32_t> parameters(host.size());
    std::iota(parameters.begin(), parameters.end(), 0u);
    return parameters;
  }

  // The part of a step that changes what outlives it. `begun` ← whether any of that work has been launched. A job's
  // update waits for the job's own data. While these travel, those of the job before go back, unless a check has
  // failed.
  std::vector<uint32_t> apply(const Plan& plan, const std::vector<Arrays>& host, bool& begun) {
    std::vector<uint32_t> flags;
    const auto finish = [&](size_t job) {
      if (job == 0) flags = read_flags(plan);
      if (all_clear(flags) && !host.empty()) link_->download(host, captured_.finishes(job), captured_.done(job));
    };
    const size_t jobs = captured_.jobs();
    for (size_t job = 0; job < jobs; ++job) {
      if (!host.empty()) link_->upload_data(host, captured_.begins(job), stream_.get());
      captured_.launch_update(job, stream_.get());
      begun = true;
      require(cudaEventRecord(captured_.done(job), stream_.get()), "cudaEventRecord");
      if (job == 0) continue;
      finish(job - 1);
      if (!all_clear(flags)) break;  // behind a closed gate the other jobs would do nothing
    }
    if (jobs == 1 || all_clear(flags)) finish(jobs - 1);
    synchronize();
    return flags;
  }

  // Reads the flags while the updates run, which leave the flags alone.
  std::vector<uint32_t> read_flags(const Plan& plan) {
    auto* const flags = static_cast<uint32_t*>(flags_.get());
    require(cudaStreamWaitEvent(side_stream_.get(), checked_.get(), 0), "cudaStreamWaitEvent");
    require(cudaMemcpyAsync(flags, plan.flags, plan.parameters * sizeof(uint32_t), cudaMemcpyDeviceToHost,
                            side_stream_.get()),
            "cudaMemcpyAsync of the flags");
    require(cudaEventRecord(read_.get(), side_stream_.get()), "cudaEventRecord");
    wait_for(read_.get());
    return {flags, flags + plan.parameters};
  }

  // After a failure the flags may still be on their way, in no order with the work that frees their memory.
  void await_flags() noexcept { cudaStreamSynchronize(side_stream_.get()); }

  // gate_[0] is the gate of a step. gate_[1] is never written, so it stays open.
  const uint32_t* open_gate() const { return gate_ + 1; }

  void capture(const Plan& plan) {
    if (captured_.is_of(plan)) return;
    captured_ = {};
    if (flags_.get() == nullptr) flags_ = make_pinned(std::max<size_t>(plan.parameters, 1) * sizeof(uint32_t));
    prepare(plan);
    CudaQueue checks = queue_behind(open_gate(), side_stream_.get());
    CudaQueue updates = queue_behind(gate_, side_stream_.get());
    CapturedPlan captured(plan, checks, updates, side_stream_.get(), gate_);
    synchronize();
    captured_ = std::move(captured);
  }

  // What is captured is captured on the side stream: a user has the other one, and may launch into it at any time.
  CudaQueue queue_behind(const uint32_t* gate, cudaStream_t stream) {
    return CudaQueue(precision_, stream, arena_, tables_, gate, notes_);
  }

  // Makes ready what the plan's launches read. The plan captured before goes, because its launches hold addresses.
  void prepare(const Plan& plan) {
    captured_ = {};
    reserve_notes(plan.notes);
    reserve_scratch(plan);
    tables_.collect();
    CudaQueue queue = queue_behind(open_gate(), side_stream_.get());
    record(side_stream_.get(), [&] {
      for (const std::vector<Job>* jobs : {&plan.checks, &plan.updates}) {
        for (const Job& job : *jobs) enqueue(job, queue);
      }
    });
    const std::vector<char>& content = tables_.content();
    reserve_tables(content.size());
    require(cudaMemcpyAsync(table_memory_, content.data(), content.size(), cudaMemcpyHostToDevice, stream_.get()),
            "cudaMemcpyAsync to the device");
    tables_.place(table_memory_);
  }

  void reserve_tables(size_t bytes) {
    if (bytes <= table_capacity_) return;
    table_capacity_ = 0;
    if (table_memory_ != nullptr) {
      require(cudaFreeAsync(std::exchange(table_memory_, nullptr), stream_.get()), "cudaFreeAsync");
    }
    table_memory_ = allocate_from(pool_.get(), bytes, "a step", stream_.get());
    table_capacity_ = bytes;
  }

  void reserve_notes(size_t count) {
    if (count <= note_count_) return;
    note_count_ = 0;
    if (notes_ != nullptr) require(cudaFreeAsync(std::exchange(notes_, nullptr), stream_.get()), "cudaFreeAsync");
    notes_ = static_cast<CheckNote*>(allocate_from(pool_.get(), count * sizeof(CheckNote), "a step", stream_.get()));
    note_count_ = count;
  }

  void reserve_scratch(const Plan& plan) {
    const Job* largest = nullptr;
    size_t bytes = 0;
    for (const Job& job : plan.updates) {  // checks have the footprints of updates
      const size_t needed = CudaQueue::scratch_bytes(precision_, job.footprints);
      if (needed > bytes) largest = &job;
      bytes = std::max(bytes, needed);
    }
    if (bytes <= arena_.capacity()) return;
    arena_.reset(nullptr, 0);
    if (scratch_ != nullptr) {
      require(cudaFreeAsync(std::exchange(scratch_, nullptr), stream_.get()), "cudaFreeAsync");
      synchronize();  // this wait gives the old scratch back, so that there need not be room for both
    }
    const std::string what = "scratch" + matrices_of(*largest);
    scratch_ = allocate_from(pool_.get(), bytes, what.c_str(), stream_.get());
    arena_.reset(scratch_, bytes);
  }

  const int index_;
  const Arithmetic arithmetic_;
  const Precision precision_;  // of every operand
  Pool pool_;
  Stream stream_;       // steps run in its order
  Stream side_stream_;  // brings the flags to the host while updates run
  Event checked_, read_, finished_;
  uint32_t* gate_ = nullptr;
  void* scratch_ = nullptr;
  Arena arena_;
  CheckNote* notes_ = nullptr;
  size_t note_count_ = 0;
  Tables tables_;
  void* table_memory_ = nullptr;
  size_t table_capacity_ = 0;
  std::optional<HostLink> link_;
  Pinned flags_;
  CapturedPlan captured_;
  // Whether a step failed that had begun to change what is held, and how it failed. To note the latter takes memory.
  bool is_lost_ = false;
  std::string lost_;
};

}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(int index, Arithmetic arithmetic) {
  const std::string obstacle = cuda_obstacle(index);
  if (!obstacle.empty()) throw Error("ERR_DEVICE_UNAVAILABLE", "cuda:" + std::to_string(index) + ": " + obstacle);
  if (arithmetic.matrix == Precision::bfloat16x3) {
    throw Error("ERR_INVALID_ARGUMENT", "Expected a precision that CUDA multiplies");
  }
  const cuda::OnDevice scope(index);
  return std::make_unique<cuda::CudaBackend>(index, arithmetic);
}

}  // namespace root_optimizer
