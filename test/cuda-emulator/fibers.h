#pragma once

#include <cstddef>

namespace emulator {

#if defined(__x86_64__) || defined(__aarch64__)
/// Leaves one stack for another: saves what a callee must preserve, and restores what the other one saved.
extern "C" void emulator_switch(void** from, void* to) __attribute__((visibility("hidden")));
#else
void emulator_switch(void** from, void* to);
#endif

/// Stacks for the threads of a block, and the switch between them and the stack of whoever schedules them.
class Fibers {
 public:
  static constexpr int kCount = 1024;
  static constexpr size_t kStackBytes = 64 << 10;

  Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  /// Creates a fiber that enters `entry` when it is first resumed. `entry` must not return.
  void* create(int stack, void (*entry)()) const;
  /// The scheduler calls this. It runs the fiber until it suspends, and returns where it stands then.
  void* resume(void* fiber) {
    emulator_switch(&scheduler_, fiber);
    return running_;
  }
  void suspend() { emulator_switch(&running_, scheduler_); }
  /// Lets another fiber go on in place of the running one, without a stop at the scheduler. Leaves in `stopped` where
  /// the running one stands.
  void pass(void** stopped, void* fiber) { emulator_switch(stopped, fiber); }

 private:
  char* stacks_;
  void* scheduler_ = nullptr;
  void* running_ = nullptr;
};

}  // namespace emulator
