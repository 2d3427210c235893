#pragma once

#include <cuda.h>

#include <array>
#include <map>
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
  uint8_t ready[warpSize + 1];  ///< the last element is for make_ready()
  int ready_count;
  bool is_listed;
  std::vector<Meeting> meetings;
  void* operands[warpSize];
};

constexpr int kGroupThreads = 128;

/// A product of a warpgroup that has been asked for and not been done.
struct GroupProduct {
  uint64_t a, b;
  bool transposes_a, transposes_b, bfloat16;
  int group;
  std::array<float*, kGroupThreads> sums;
};

struct Warpgroup {
  std::vector<GroupProduct> products;
  std::array<size_t, kGroupThreads> issued;  ///< of `products`, by each thread
  std::array<int, kGroupThreads> committed;  ///< groups of products, by each thread
  int waiting;
  std::vector<int> waiters;
};

/// Runs one block after another. Only barriers and collectives restrict the order in which a block's threads run.
class Block {
 public:
  void prepare(const Launch& launch, Random& random);
  /// Runs one block; false after a fault.
  bool run();

  int barrier(Vote vote, int predicate, const Site& site);
  void collective(unsigned mask, const Collective& operation, void* operand, const Site& site);
  void named_barrier(int number, int threads);
  void init_phase(uint64_t* barrier, int count);
  void arrive(uint64_t* barrier, int bytes);
  void wait_phase(uint64_t* barrier, int parity);
  void copy_box(void* to, const CUtensorMap& map, int column, int row, int matrix, uint64_t* barrier);
  void multiply_group(float* sums, const GroupProduct& product);
  void commit_group();
  void wait_group(int pending);
  [[noreturn]] void fail(const std::string& message);
  void* shared_array(const void* key, const char* name, size_t bytes, size_t alignment);
  const SharedMemory& shared() const { return shared_; }
  Thread& thread() { return *current_; }
  bool is_in_thread() const { return is_in_thread_; }
  int lane() const { return current_->id % warpSize; }

  std::string message;
  cudaError_t error = cudaSuccess;

 private:
  /// A barrier in shared memory.
  struct PhaseBarrier {
    int count, missing;
    int bytes = 0;   // that are expected and have not been copied
    int number = 0;  // of the phase that has not ended
    std::vector<int> waiters;
  };

  /// A box that has been asked for and has not landed.
  struct Box {
    char* to;
    CUtensorMap map;
    int column, row, matrix;
    uint64_t* barrier;
  };

  static void enter();
  bool continue_with_next();
  void resume(Thread& thread);
  /// Ends or interrupts the running thread. Another one of its warp goes on, or the scheduler.
  void suspend();
  void make_ready(Warp& warp, unsigned lanes);
  void make_ready(int thread);
  void list(Warp& warp);
  PhaseBarrier& phase(uint64_t* barrier);
  void advance(PhaseBarrier& barrier);
  /// Lets one of the boxes land; false if there are none.
  bool land_box();
  Warpgroup& warpgroup() { return warpgroups_[size_t(current_->id / kGroupThreads)]; }
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
  bool goes_on_ = false;       // with the same warp, where it has a thread that can go on

  int waiting_ = 0;  // threads at the barrier
  int votes_ = 0, result_ = 0;
  Site barrier_site_{};

  std::array<std::vector<int>, 16> named_;  // the threads at each named barrier
  std::map<uint64_t*, PhaseBarrier> phases_;
  std::vector<Box> boxes_;
  std::array<Warpgroup, Fibers::kCount / kGroupThreads> warpgroups_;

  SharedMemory shared_;
};

/// Made for the first kernel, and kept.
extern Block* block;

std::string coordinates(unsigned x, unsigned y, unsigned z);

}  // namespace emulator
