#include "block.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace emulator {

Block* block;

namespace {

bool same(const Site& a, const Site& b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }

const char* base_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

std::string at(const Site& site) { return std::string(base_name(site.file)) + ":" + std::to_string(site.line); }

}  // namespace

std::string coordinates(unsigned x, unsigned y, unsigned z) {
  return std::string("(") + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

void Block::enter() {
  do {
    bool threw = false;
    try {
      block->launch_->thread();
    } catch (...) {
      threw = true;
    }
    if (threw) block->fail("an exception left the kernel");
    block->current_->ended = true;
  } while (block->continue_with_next());
  block->free_stacks_.push_back(block->current_->stack);
  block->suspend();
  __builtin_unreachable();
}

// A thread that has not begun yet can begin on the stack of one that has ended.
bool Block::continue_with_next() {
  Warp& warp = warps_[current_->id / warpSize];
  if (warp.ready_count == 0) return false;
  Thread& next = threads_[warp.first + warp.ready[warp.ready_count - 1]];
  if (next.fiber) return false;
  --warp.ready_count;
  next.stack = current_->stack;
  current_ = &next;
  thread_index = next.index;
  return true;
}

void Block::prepare(const Launch& launch, Random& random) {
  launch_ = &launch;
  random_ = &random;
  thread_count_ = int(launch.block.x * launch.block.y * launch.block.z);
  warp_count_ = (thread_count_ + warpSize - 1) / warpSize;
  for (auto& permutation : permutations_) {
    std::iota(permutation.begin(), permutation.end(), uint8_t(0));
    for (int i = warpSize - 1; i > 0; --i) std::swap(permutation[i], permutation[random_->below(size_t(i) + 1)]);
  }
  uint3 index{};
  for (int i = 0; i < thread_count_; ++i) {
    threads_[i].id = i;
    threads_[i].index = index;
    if (++index.x == launch.block.x) index.x = 0, ++index.y;
    if (index.y == launch.block.y) index.y = 0, ++index.z;
  }
}

bool Block::run() {
  error = cudaSuccess;
  message.clear();
  waiting_ = votes_ = 0;
  ready_warps_.clear();
  free_stacks_.resize(Fibers::kCount);
  std::iota(free_stacks_.rbegin(), free_stacks_.rend(), 0);
  for (int i = 0; i < thread_count_; ++i) {
    Thread& thread = threads_[i];
    thread.fiber = nullptr;
    thread.ended = thread.at_barrier = false;
    thread.copies.pending.clear();
    thread.copies.group = 0;
  }
  for (int i = 0; i < warp_count_; ++i) {
    Warp& warp = warps_[i];
    warp.first = i * warpSize;
    warp.lanes = std::min(warpSize, thread_count_ - warp.first);
    warp.ready_count = 0;
    warp.is_listed = false;
    warp.meetings.clear();
    make_ready(warp, kFullMask);
  }
  shared_.reset(launch_->shared);
  phases_.clear();
  boxes_.clear();
  for (std::vector<int>& threads : named_) threads.clear();
  for (Warpgroup& group : warpgroups_) group = {};

  while (!ready_warps_.empty() || land_box()) {
    if (!ready_warps_.empty() && !boxes_.empty() && (random_->next() & 3) == 0) land_box();
    if (error != cudaSuccess) return false;
    if (ready_warps_.empty()) continue;
    std::swap(ready_warps_[random_->below(ready_warps_.size())], ready_warps_.back());
    Warp& warp = *ready_warps_.back();
    ready_warps_.pop_back();
    warp.is_listed = false;
    goes_on_ = true;
    while (goes_on_ && warp.ready_count > 0) {
      resume(threads_[warp.first + warp.ready[--warp.ready_count]]);
      if (error != cudaSuccess) return false;
    }
    list(warp);
  }
  const bool all_ended = std::all_of(threads_.begin(), threads_.begin() + thread_count_,
                                     [](const Thread& thread) { return thread.ended; });
  if (!all_ended) {
    error = cudaErrorLaunchFailure;
    message = deadlock();
  } else {
    message = shared_.inspect();
    if (!message.empty()) error = cudaErrorIllegalAddress;
  }
  return error == cudaSuccess;
}

void Block::resume(Thread& thread) {
  if (!thread.fiber) {
    thread.stack = free_stacks_.back();
    free_stacks_.pop_back();
    thread.fiber = fibers_.create(thread.stack, enter);
  }
  current_ = &thread;
  thread_index = thread.index;
  is_in_thread_ = true;
  void* stopped = fibers_.resume(thread.fiber);
  is_in_thread_ = false;
  current_->fiber = stopped;
}

void Block::suspend() {
  goes_on_ = (random_->next() & 15) != 0;
  Warp& warp = warps_[current_->id / warpSize];
  if (goes_on_ && warp.ready_count > 0) {
    Thread& next = threads_[warp.first + warp.ready[warp.ready_count - 1]];
    // The scheduler begins threads, because they need a stack.
    if (next.fiber) {
      --warp.ready_count;
      void** stopped = &current_->fiber;
      current_ = &next;
      thread_index = next.index;
      fibers_.pass(stopped, next.fiber);
      return;
    }
  }
  fibers_.suspend();
}

void Block::list(Warp& warp) {
  if (warp.is_listed || warp.ready_count == 0) return;
  warp.is_listed = true;
  ready_warps_.push_back(&warp);
}

void Block::make_ready(Warp& warp, unsigned lanes) {
  lanes &= kFullMask >> (warpSize - warp.lanes);
  // Which lanes those are cannot be predicted, so every one is written and may be overwritten by the next.
  for (const uint8_t lane : permutations_[random_->below(permutations_.size())]) {
    warp.ready[warp.ready_count] = lane;
    warp.ready_count += int(lanes >> lane & 1);
  }
  list(warp);
}

void Block::make_ready(int thread) {
  Warp& warp = warps_[thread / warpSize];
  warp.ready[warp.ready_count++] = uint8_t(thread % warpSize);
  list(warp);
}

int Block::barrier(Vote vote, int predicate, const Site& site) {
  if (waiting_ == 0) {
    barrier_site_ = site;
    votes_ = 0;
  } else if (!same(site, barrier_site_)) {
    fail("divergent barrier: this thread waits at " + at(site) + ", others at " + at(barrier_site_));
  }
  if (vote != Vote::none && predicate) ++votes_;
  if (++waiting_ < thread_count_) {
    current_->at_barrier = true;
    suspend();
  } else {
    waiting_ = 0;
    result_ = vote == Vote::any ? votes_ != 0 : votes_;
    for (int i = 0; i < warp_count_; ++i) {
      Warp& warp = warps_[i];
      const bool is_own = warp.first == current_->id - lane();
      make_ready(warp, is_own ? ~(1u << lane()) : kFullMask);
    }
    for (int i = 0; i < thread_count_; ++i) threads_[i].at_barrier = false;
  }
  return result_;
}

void Block::collective(unsigned mask, const Collective& operation, void* operand, const Site& site) {
  Warp& warp = warps_[current_->id / warpSize];
  const unsigned own = 1u << lane();
  if (!(mask & own)) {
    fail(std::string(operation.name) + " at " + at(site) + " with a mask that lacks the lane itself");
  }
  warp.operands[lane()] = operand;
  size_t i = 0;
  while (i < warp.meetings.size() &&
         !(warp.meetings[i].mask == mask && warp.meetings[i].operation.run == operation.run &&
           same(warp.meetings[i].site, site))) {
    ++i;
  }
  if (i == warp.meetings.size()) warp.meetings.push_back({mask, 0, operation, site});
  warp.meetings[i].arrived |= own;
  if (warp.meetings[i].arrived != mask) {
    suspend();
    return;
  }
  warp.meetings.erase(warp.meetings.begin() + ptrdiff_t(i));
  if (operation.run) operation.run(warp.operands, mask);
  make_ready(warp, mask & ~own);
}

void Block::fail(const std::string& text) {
  error = cudaErrorLaunchFailure;
  message = "thread " + coordinates(current_->index.x, current_->index.y, current_->index.z) + ": " + text;
  fibers_.suspend();
  __builtin_unreachable();
}

// Says why no thread can go on: some thread has ended, or waits elsewhere, while others wait for it.
std::string Block::deadlock() const {
  for (int i = 0; i < warp_count_; ++i) {
    for (const Meeting& meeting : warps_[i].meetings) {
      char masks[64];
      snprintf(masks, sizeof masks, "lanes 0x%08x of 0x%08x", meeting.arrived, meeting.mask);
      return "warp " + std::to_string(i) + ": only " + masks + " have come to " + meeting.operation.name + " at " +
             at(meeting.site);
    }
  }
  for (const auto& [address, barrier] : phases_) {
    if (!barrier.waiters.empty()) {
      return std::to_string(barrier.waiters.size()) + " threads wait at an mbarrier for " +
             std::to_string(barrier.missing) + " threads and " + std::to_string(barrier.bytes) + " bytes";
    }
  }
  for (size_t number = 0; number < named_.size(); ++number) {
    if (!named_[number].empty()) {
      return "only " + std::to_string(named_[number].size()) + " threads have come to named barrier " +
             std::to_string(number);
    }
  }
  for (const Warpgroup& group : warpgroups_) {
    if (group.waiting > 0) return "only " + std::to_string(group.waiting) + " threads of a warpgroup wait for products";
  }
  const auto absent = std::find_if(threads_.begin(), threads_.end(), [](const Thread& t) { return !t.at_barrier; });
  return "divergent barrier: " + std::to_string(waiting_) + " of " + std::to_string(thread_count_) +
         " threads wait at " + at(barrier_site_) + ", but thread " +
         coordinates(absent->index.x, absent->index.y, absent->index.z) + " has ended";
}

void* Block::shared_array(const void* key, const char* name, size_t bytes, size_t alignment) {
  void* memory = shared_.array(key, name, bytes, alignment);
  if (!memory) fail("more shared memory than a block may have, or than 48 KiB in arrays");
  return memory;
}

}  // namespace emulator
