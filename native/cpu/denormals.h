#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace root_optimizer::cpu {

/// Denormals count as zero while this object lives. Small singular values sink that far, and an operation on a denormal
/// costs as much as a hundred others. Only products use this class: everywhere else every bit counts.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
#else
  FlushDenormals() {}  // Arm processors compute denormals at full speed.
#endif
};

}  // namespace root_optimizer::cpu
