#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../devices.h"
#include "../error.h"
#include "memory.h"
#include "processor.h"
#include "queue.h"

namespace root_optimizer {

namespace cpu {

// The FLOP from which a job is worth dividing. The products of a smaller job take no longer than waking a thread.
constexpr double kDivisibleCost = 6e7;

// Dividing a job of medium size costs about this factor, because its blocks do not come out even.
constexpr double kWorthDividing = 1.2;

static const Kernels& kernels_for(Precision precision) {
  const InstructionSets sets = chosen_sets();
  const Kernels* kernels = sets.kernels_for(precision);
  if (kernels == nullptr) {
    throw Error("ERR_INVALID_ARGUMENT", std::string("Expected a precision that ") + sets.name + " multiplies");
  }
  return *kernels;
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, Arithmetic arithmetic)
      : kernels_(kernels_for(arithmetic.matrix)), arithmetic_(arithmetic), pool_(threads) {
    queues_.reserve(size_t(threads));
    const int64_t cache = second_level_cache();
    for (int i = 0; i < threads; ++i) queues_.emplace_back(kernels_, arithmetic.matrix, cache, clips_);
  }

  Arithmetic arithmetic() const override { return arithmetic_; }
  // One matrix, so that it stays in a core's caches from its momentum to its update.
  bool takes(std::span<const Footprint> job, bool) const override { return job.size() == 1 && job[0].count == 1; }
  size_t memory_bytes() const override {
    size_t bytes = 0;
    for (const CpuQueue& queue : queues_) bytes += queue.capacity();
    return bytes;
  }

  void* allocate(size_t bytes) override { return std::memset(take_memory(bytes), 0, bytes); }
  void release(void* memory) noexcept override { std::free(memory); }
  void read(void* host, const void* device, size_t bytes) override { copy(host, device, bytes); }
  void write(void* device, const void* host, size_t bytes) override { copy(device, host, bytes); }

  ParameterStore* make_store(const std::vector<int64_t>&, size_t) override { return nullptr; }

  std::vector<uint32_t> run(const Plan& plan) override {
    clips_.resize(plan.notes);
    std::fill(plan.flags, plan.flags + plan.parameters, 0);
    run(plan.checks);
    const std::vector<uint32_t> flags(plan.flags, plan.flags + plan.parameters);
    if (std::all_of(flags.begin(), flags.end(), [](uint32_t flag) { return flag == 0; })) run(plan.updates);
    return flags;
  }

  std::vector<uint32_t> step(const Plan& plan, const std::vector<Arrays>&) override { return run(plan); }

 private:
  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
  }

  // First come the jobs that would leave threads idle at the end: one after another, each divided among all threads.
  // Then each thread takes whole jobs, longest first.
  void run(const std::vector<Job>& jobs) {
    std::vector<const Job*> order;
    for (const Job& job : jobs) order.push_back(&job);
    std::stable_sort(order.begin(), order.end(), [](const Job* a, const Job* b) { return a->cost > b->cost; });
    size_t divided = 0;
    while (divided < order.size() && order[divided]->cost >= kDivisibleCost &&
           imbalance(order, divided) > kWorthDividing) {
      ++divided;
    }
    reserve(order, divided);
    for (size_t i = 0; i < divided; ++i) run_job(queues_[0], *order[i], &pool_);
    pool_.for_each(int64_t(order.size() - divided), Order::in_turn,
                   [&](int64_t i, int slot) { run_job(queues_[size_t(slot)], *order[divided + size_t(i)], nullptr); });
  }

  static void run_job(CpuQueue& queue, const Job& job, ThreadPool* team) {
    queue.begin(team);
    job.enqueue(queue);
  }

  // The busiest thread's time divided by the average, if each whole job from `first` on goes to the next free thread.
  double imbalance(const std::vector<const Job*>& order, size_t first) const {
    std::vector<double> loads(queues_.size(), 0);
    double total = 0;
    for (size_t i = first; i < order.size(); ++i) {
      *std::min_element(loads.begin(), loads.end()) += order[i]->cost;
      total += order[i]->cost;
    }
    return *std::max_element(loads.begin(), loads.end()) * double(loads.size()) / total;
  }

  void reserve(const std::vector<const Job*>& order, size_t divided) {
    size_t alone = 0;
    size_t together = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      size_t& most = i < divided ? together : alone;
      for (const Footprint& footprint : order[i]->footprints) {
        const int threads = i < divided ? pool_.threads() : 1;
        most = std::max(most, CpuQueue::scratch_bytes(kernels_, arithmetic_.matrix, footprint, threads));
      }
    }
    const size_t single = order.size() - divided;
    if (divided > 0 || single > 1) pool_.start();
    for (size_t i = 0; i < queues_.size(); ++i) {
      queues_[i].reserve(std::max(i == 0 ? together : 0, i < single ? alone : 0));
    }
  }

  const Kernels& kernels_;
  const Arithmetic arithmetic_;
  ThreadPool pool_;
  std::vector<Clip> clips_;
  std::vector<CpuQueue> queues_;
};

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(int threads, Arithmetic arithmetic) {
  return std::make_unique<cpu::CpuBackend>(threads > 0 ? threads : cpu::physical_cores(), arithmetic);
}

CpuReport cpu_report() {
  const cpu::InstructionSets sets = cpu::chosen_sets();
  return {.description = cpu::processor_name(),
          .instruction_set = sets.name,
          .physical_cores = cpu::physical_cores(),
          .bfloat16 = sets.kernels_for(Precision::bfloat16) != nullptr,
          .bfloat16x3 = sets.kernels_for(Precision::bfloat16x3) != nullptr};
}

// On matrix units all operands are in the precision of matrices. Without them, squares of longer legs are floats.
Arithmetic cpu_arithmetic(Precision precision) {
  const cpu::Kernels* kernels = cpu::chosen_sets().kernels_for(precision);
  const bool on_tiles = kernels != nullptr && kernels->tiles != nullptr;
  return {.matrix = precision, .gram_square = on_tiles ? precision : Precision::float32, .keeps_rest = on_tiles};
}

double cpu_peak(Precision precision) {
  using Clock = std::chrono::steady_clock;
  const cpu::Kernels& kernels = cpu::kernels_for(precision);
  const bool in_pairs = precision == Precision::bfloat16 && kernels.tiles == nullptr;
  const auto multiply_adds = in_pairs ? kernels.pairs->multiply_adds : kernels.multiply_adds;
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const Clock::time_point start = Clock::now();
    const double flop = multiply_adds(1 << 20);
    best = std::max(best, flop / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace root_optimizer
