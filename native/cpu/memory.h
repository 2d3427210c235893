#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace root_optimizer::cpu {

/// Returns uninitialised memory that begins at a cache line, to be released by std::free. Large memory lies on huge
/// pages if the system has any, because kernels walk through it in strides that would otherwise use up the address
/// translation cache.
inline void* take_memory(size_t bytes) {
  constexpr size_t kCacheLine = 64;
  constexpr size_t kHugePage = size_t(2) << 20;
  const bool huge = bytes >= kHugePage;
  void* memory;
  if (posix_memalign(&memory, huge ? kHugePage : kCacheLine, std::max<size_t>(bytes, 1)) != 0) throw std::bad_alloc();
#if defined(__linux__)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace root_optimizer::cpu
