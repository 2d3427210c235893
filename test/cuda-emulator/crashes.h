#pragma once

#include <signal.h>

namespace emulator {

/// While a guard lives, a crash in a kernel's thread (an address that is not there or not aligned, a stack that is
/// full, a division by zero) ends that kernel instead of the process.
class CrashGuard {
 public:
  CrashGuard();
  ~CrashGuard();
  CrashGuard(const CrashGuard&) = delete;
  CrashGuard& operator=(const CrashGuard&) = delete;

  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};

 private:
  stack_t former_stack_{};
};

}  // namespace emulator
