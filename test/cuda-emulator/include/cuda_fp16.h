#pragma once

#include "emulated_language.h"

namespace emulator {

/// Rounds to nearest, ties to even; every NaN becomes 0x7fff, as on the device.
inline uint16_t half_bits(float value) {
  const uint32_t x = bits<uint32_t>(value);
  const uint32_t magnitude = x & 0x7fffffff;
  const uint16_t sign = uint16_t(x >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return 0x7fff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and beyond rounds to infinity
  if (magnitude < 0x38800000) {
    // Adding 0.5 leaves a subnormal's bits, rounded, at the end of the significand.
    return uint16_t(sign | (bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000));
  }
  return uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

/// Branch-free, so that loops over it become vector code.
inline float half_value(uint16_t half) {
  const uint32_t magnitude = uint32_t(half & 0x7fff) << 13;
  const uint32_t finite = bits<uint32_t>(bits<float>(magnitude) * 0x1p112f);
  const uint32_t special = uint32_t(-int32_t(magnitude >= 0x0f800000)) & 0x7f800000;
  return bits<float>(finite | special | uint32_t(half & 0x8000) << 16);
}

}  // namespace emulator

struct __half {
  uint16_t storage;

  __half() = default;
  __half(float value) : storage(emulator::half_bits(value)) {}
  operator float() const { return emulator::half_value(storage); }
};
using half = __half;

struct __half2 {
  alignas(4) __half x;
  __half y;
};
using half2 = __half2;

inline __half __float2half_rn(float value) { return value; }
inline __half __float2half(float value) { return value; }
inline float __half2float(__half value) { return value; }
inline unsigned short __half_as_ushort(__half value) { return value.storage; }
inline __half __ushort_as_half(unsigned short value) { return emulator::bits<__half>(value); }

inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 value) { return {value.x, value.y}; }
inline float2 __half22float2(__half2 value) { return {value.x, value.y}; }
inline __half __low2half(__half2 value) { return value.x; }
inline __half __high2half(__half2 value) { return value.y; }
inline float __low2float(__half2 value) { return value.x; }
inline float __high2float(__half2 value) { return value.y; }
