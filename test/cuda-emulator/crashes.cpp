#include "crashes.h"

#include <pthread.h>
#include <ucontext.h>

#include <cstdint>
#include <iterator>

#include "block.h"

namespace emulator {

#if defined(__x86_64__) || defined(__aarch64__)

namespace {

constexpr size_t kStackBytes = 64 << 10;

struct sigaction former_actions[std::size(CrashGuard::kSignals)];
pthread_t kernel_thread;
alignas(16) char signal_stack[kStackBytes];
alignas(16) char crash_stack[kStackBytes];
volatile int crash_signal;
const void* volatile crash_address;

[[noreturn]] void fail_kernel() {
  if (crash_signal == SIGFPE) fault("an integer division by zero");
  fault("an access to %p, which is not there or not aligned, or a full stack", crash_address);
}

// When the handler has returned, the thread goes on in fail_kernel(), on a stack of its own.
void handle(int signal, siginfo_t* info, void* context) {
  if (!pthread_equal(pthread_self(), kernel_thread) || !block->is_in_thread()) {
    for (size_t i = 0; i < std::size(CrashGuard::kSignals); ++i) {
      if (CrashGuard::kSignals[i] == signal) sigaction(signal, &former_actions[i], nullptr);
    }
    return;
  }
  crash_signal = signal;
  crash_address = info->si_addr;
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
  const auto top = reinterpret_cast<uintptr_t>(crash_stack + kStackBytes);
#ifdef __x86_64__
  registers.gregs[REG_RIP] = greg_t(reinterpret_cast<uintptr_t>(fail_kernel));
  registers.gregs[REG_RSP] = greg_t(top - 8);  // as after a call
#else
  registers.pc = reinterpret_cast<uintptr_t>(fail_kernel);
  registers.sp = top;
#endif
}

}  // namespace

CrashGuard::CrashGuard() {
  kernel_thread = pthread_self();
  // A full stack has no room for the handler.
  stack_t stack{};
  stack.ss_sp = signal_stack;
  stack.ss_size = kStackBytes;
  sigaltstack(&stack, &former_stack_);
  struct sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &former_actions[i]);
}

CrashGuard::~CrashGuard() {
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &former_actions[i], nullptr);
  sigaltstack(&former_stack_, nullptr);
}

#else

CrashGuard::CrashGuard() = default;
CrashGuard::~CrashGuard() = default;

#endif

}  // namespace emulator
