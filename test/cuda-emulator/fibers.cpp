#include "fibers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

namespace emulator {

namespace {

const size_t kPage = size_t(sysconf(_SC_PAGESIZE));
const size_t kStride = Fibers::kStackBytes + kPage;

}  // namespace

Fibers::Fibers() {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, kCount * kStride, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<char*>(memory);
  // An inaccessible page lies below each stack, so that an overflow ends the process instead of changing another
  // thread's variables.
  for (int i = 0; i < kCount; ++i) mprotect(stacks_ + size_t(i) * kStride, kPage, PROT_NONE);
}

#if defined(__x86_64__) || defined(__aarch64__)

// Switches jump instead of returning: the processor expects a return to go back to where the latest call came from.
#ifdef __x86_64__

asm(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
  .size emulator_switch, .-emulator_switch
)");

constexpr int kFrameWords = 8;  // six registers, the address to return to, and the one that it would return to
constexpr int kReturnWord = 6;

#else

asm(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, %function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  br x30
  .size emulator_switch, .-emulator_switch
)");

constexpr int kFrameWords = 20;
constexpr int kReturnWord = 11;

#endif

void* Fibers::create(int stack, void (*entry)()) const {
  // Tops lie at different places of a page, because tops at the same place would share few lines of the cache.
  const size_t offset = size_t(stack) * 192 % 4096;
  uintptr_t* frame = reinterpret_cast<uintptr_t*>(stacks_ + size_t(stack + 1) * kStride - offset) - kFrameWords;
  for (int i = 0; i < kFrameWords; ++i) frame[i] = 0;
  frame[kReturnWord] = reinterpret_cast<uintptr_t>(entry);
  return frame;
}

#else

static ucontext_t contexts[Fibers::kCount];
static ucontext_t scheduler;

void* Fibers::create(int stack, void (*entry)()) const {
  ucontext_t& context = contexts[stack];
  getcontext(&context);
  context.uc_stack.ss_sp = stacks_ + size_t(stack) * kStride + kPage;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
  return &contexts[stack];
}

void emulator_switch(void** from, void* to) {
  static ucontext_t* running = &scheduler;
  ucontext_t* left = running;
  *from = left;
  running = static_cast<ucontext_t*>(to);
  swapcontext(left, running);
}

#endif

}  // namespace emulator
