#pragma once

// Elements of the products' operands.

#include "../native/batch.h"
#include "launch.cuh"

namespace root_optimizer::cuda {

/// Elements of an operand, 16 bytes at a time.
template <typename T>
struct alignas(16) Chunk {
  static constexpr int kSize = 16 / int(sizeof(T));
  T elements[kSize];
};

template <typename T>
__device__ Chunk<T> load_chunk(const T* at) {
  const uint4 word = *reinterpret_cast<const uint4*>(at);
  return *reinterpret_cast<const Chunk<T>*>(&word);
}

/// Uses the intrinsic, because the compiler splits plain stores of what was put together element by element.
template <typename T>
__device__ void store_chunk(T* at, const Chunk<T>& chunk) {
  __stwb(reinterpret_cast<uint4*>(at), *reinterpret_cast<const uint4*>(&chunk));
}

template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float(float x) {
  return x;
}
template <>
__device__ inline __half from_float(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float(float x) {
  return __float2bfloat16_rn(x);
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

/// The factor of second parts in memory, without which those of float16 would be too small for its full precision.
template <typename T>
constexpr float kLowScale = 1;
template <>
inline constexpr float kLowScale<__half> = 2048;

/// Calls task(T{}) with the element type of a precision.
template <typename Task>
void with_element(Precision precision, Task task) {
  switch (precision) {
    case Precision::float16: return task(__half{});
    case Precision::bfloat16: return task(__nv_bfloat16{});
    case Precision::float32: return task(float{});
    case Precision::bfloat16x3: break;  // refused when the backend was made
  }
}

}  // namespace root_optimizer::cuda
