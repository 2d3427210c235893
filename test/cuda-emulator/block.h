#pragma once

#include <array>
#include <string>
#include <vector>

#include "fibers.h"
#include "kernel.h"
#include "shared.h"

namespace emulator {

constexpr int kMaxWarps = Fibers::kCount / warpSize;

struct Thread {
  void* fiber;
  int id;
  int stack;
  uint3 index;
  bool ended;
  bool at_barrier;
  Copies copies;
};

/// A warp collective that waits for lanes.
struct Meeting {
  unsigned mask;
  unsigned arrived;
  Collective operation;
  Site site;
};

struct Warp {
  int first;  ///< id of lane 0
  int lanes;
  uint8_t ready[warpSize];
  int ready_count;
  bool is_listed;
  std::vector<Meeting> meetings;
  void* operands[warpSize];
};

/// Runs one block after another. Only barriers and collectives restrict the order in which a block's threads run.
class Block {
 public:
  void prepare(const Launch& launch, Random& random);
  /// Runs one block; false after a fault.
  bool run();

  int barrier(Vote vote, int predicate, const Site& site);
  void collective(unsigned mask, const Collective& operation, void* operand, const Site& site);
  [[noreturn]] void fail(const std::string& message);
  void* shared_array(const void* key, const char* name, size_t bytes, size_t alignment);
  const SharedMemory& shared() const { return shared_; }
  Thread& thread() { return *current_; }
  bool is_in_thread() const { return is_in_thread_; }
  int lane() const { return current_->id % warpSize; }

  std::string message;
  cudaError_t error = cudaSuccess;

 private:
  static void enter();
  bool continue_with_next();
  void resume(Thread& thread);
  void make_ready(Warp& warp, unsigned lanes);
  void list(Warp& warp);
  std::string deadlock() const;

  Fibers fibers_;
  std::array<std::array<uint8_t, warpSize>, 64> permutations_;
  const Launch* launch_ = nullptr;
  Random* random_ = nullptr;
  std::vector<Thread> threads_{Fibers::kCount};
  std::array<Warp, kMaxWarps> warps_;
  int thread_count_ = 0, warp_count_ = 0;
  std::vector<Warp*> ready_warps_;
  std::vector<int> free_stacks_;
  Thread* current_ = nullptr;
  bool is_in_thread_ = false;  // rather than in the scheduler

  int waiting_ = 0;  // threads at the barrier
  int votes_ = 0, result_ = 0;
  Site barrier_site_{};

  SharedMemory shared_;
};

/// Made for the first kernel, and kept.
extern Block* block;

std::string coordinates(unsigned x, unsigned y, unsigned z);

}  // namespace emulator
