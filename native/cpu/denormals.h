#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace root_optimizer::cpu {

/// Denormals count as zero while this lives. Small singular values sink that far, and an operation on a denormal costs
/// a hundred others. For products only: everywhere else every bit counts.
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
