#pragma once

#include "emulated_language.h"

namespace emulator {

/// Rounds to nearest, ties to even; every NaN becomes 0x7fff, as on the device.
inline uint16_t bfloat16_bits(float value) {
  const uint32_t x = bits<uint32_t>(value);
  if ((x & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return uint16_t((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

inline float bfloat16_value(uint16_t value) { return bits<float>(uint32_t(value) << 16); }

}  // namespace emulator

struct __nv_bfloat16 {
  uint16_t storage;

  __nv_bfloat16() = default;
  __nv_bfloat16(float value) : storage(emulator::bfloat16_bits(value)) {}
  operator float() const { return emulator::bfloat16_value(storage); }
};
using nv_bfloat16 = __nv_bfloat16;

struct __nv_bfloat162 {
  alignas(4) __nv_bfloat16 x;
  __nv_bfloat16 y;
};
using nv_bfloat162 = __nv_bfloat162;

inline __nv_bfloat16 __float2bfloat16_rn(float value) { return value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return value; }
inline float __bfloat162float(__nv_bfloat16 value) { return value; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.storage; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short value) { return emulator::bits<__nv_bfloat16>(value); }

inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 value) { return {value.x, value.y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 value) { return {value.x, value.y}; }
inline float __low2float(__nv_bfloat162 value) { return value.x; }
inline float __high2float(__nv_bfloat162 value) { return value.y; }
