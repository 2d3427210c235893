// Conversions, warp functions and tensor-core fragments, against plain arithmetic.

#include <cmath>

#include "faults.h"

using namespace root_optimizer::cuda;

namespace {

// The value halfway between two neighbours of the format must round to the even one.
template <typename Element, typename FromBits>
bool rounds(FromBits from_bits, int infinity) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float value = from_bits(uint16_t(bits));
    const int magnitude = bits & 0x7fff;
    if (magnitude > infinity) {
      if (!std::isnan(value) || !std::isnan(float(Element(value)))) return false;
      continue;
    }
    if (Element(value).storage != bits) return false;
    if (magnitude >= infinity) continue;
    // The neighbour beyond the largest number is what infinity would be if it were a number.
    const double next =
        magnitude + 1 < infinity ? double(from_bits(uint16_t(bits + 1))) : 2.0 * value - from_bits(uint16_t(bits - 1));
    const float middle = float((double(value) + next) / 2);
    const int nearest = magnitude % 2 == 0 ? bits : bits + 1;
    const float outwards = std::copysign(INFINITY, value);
    if (Element(middle).storage != nearest) return false;
    if (Element(std::nextafter(middle, 0.0f)).storage != bits) return false;
    if (Element(std::nextafter(middle, outwards)).storage != bits + 1) return false;
  }
  return true;
}

bool rounds_half(bool) {
  return rounds<__half>([](uint16_t bits) { return float(__ushort_as_half(bits)); }, 0x7c00);
}
bool rounds_bfloat16(bool) {
  return rounds<__nv_bfloat16>([](uint16_t bits) { return float(__ushort_as_bfloat16(bits)); }, 0x7f80);
}

// A warp's product of 16 × 16 and 16 × 8 elements. b lies by rows if `kTransposed`, else by columns.
template <typename Element, bool kTransposed, bool kBroken>
__global__ void product(const Element* a, const Element* b, float* d) {
  SHARED_ARRAY(Element, tile_a, 256);
  SHARED_ARRAY(Element, tile_b, 256);
  for (int i = int(threadIdx.x); i < 256; i += warpSize) {
    tile_a[i] = a[i];
    tile_b[i] = b[i % 128];
  }
  __syncwarp();
  const int lane = int(threadIdx.x), row = lane % 8, matrix = lane / 8;
  uint32_t fragment_a[4], fragment_b[4];
  load_matrix_x4(fragment_a, &tile_a[(row + matrix % 2 * 8) * 16 + matrix / 2 * 8]);
  if (kTransposed) {
    load_matrix_x4_transposed(fragment_b, &tile_b[(row + matrix * 8) * 8]);
  } else {
    load_matrix_x4(fragment_b, &tile_b[row * 16 + matrix % 2 * 8]);
  }
  float sums[4] = {1, 1, 1, 1};
  const uint32_t first_two[2] = {fragment_b[kBroken ? 1 : 0], fragment_b[kBroken ? 0 : 1]};
  multiply_accumulate(sums, fragment_a, first_two, Element());
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

template <typename Element, bool kTransposed>
bool multiplies(bool broken) {
  std::vector<Element> a, b;
  for (int i = 0; i < 256; ++i) a.push_back(float(i * 37 % 19 - 9));
  for (int i = 0; i < 128; ++i) b.push_back(float(i * 53 % 23 - 11));
  float* d = device_array<float>(128);
  const auto kernel = broken ? product<Element, kTransposed, true> : product<Element, kTransposed, false>;
  launch("product", kernel, 1, warpSize, 0, nullptr, device_copy(a), device_copy(b), d);
  const std::vector<float> results = host_copy(d, 128);
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      float expected = 1;
      for (size_t k = 0; k < 16; ++k) {
        expected += float(a[row * 16 + k]) * float(b[kTransposed ? k * 8 + column : column * 16 + k]);
      }
      if (results[row * 8 + column] != expected) return false;
    }
  }
  return true;
}

// Sixteen equal products that are added to 1, of which tensor cores keep 23 bits after the point and a few more: what
// lies below is cut off from each of them, towards 0.
bool cuts(bool) {
  int major;
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  const int extra_bits = major >= 9 ? 2 : 1;
  for (const float sign : {1.0f, -1.0f}) {
    for (const int bits : {22, 23, 24, 25, 26}) {
      std::vector<__half> a(256, 0.0f), b(128, 0.0f);
      for (size_t k = 0; k < 16; ++k) {
        a[k] = sign * std::ldexp(1.0f, -12);
        b[k * 8] = std::ldexp(1.0f, 12 - bits);
      }
      float* d = device_array<float>(128);
      launch("product", product<__half, true, false>, 1, warpSize, 0, nullptr, device_copy(a), device_copy(b), d);
      const double expected = bits <= 23 + extra_bits ? 1 + sign * std::ldexp(16.0, -bits) : 1;
      if (host_copy(d, 128)[0] != float(expected)) return false;
    }
  }
  return true;
}

__global__ void warp_functions(int* results) {
  const int lane = int(threadIdx.x);
  const unsigned half = lane < 16 ? 0xffff : 0xffff0000;
  int right = __shfl_sync(0xffffffff, lane, 5) == 5;
  right &= __shfl_xor_sync(0xffffffff, double(lane), 3) == (lane ^ 3);
  right &= __shfl_down_sync(0xffffffff, lane, 4) == (lane < 28 ? lane + 4 : lane);
  right &= __shfl_up_sync(0xffffffff, lane, 4) == (lane < 4 ? lane : lane - 4);
  right &= __ballot_sync(0xffffffff, lane % 4 == 0) == 0x11111111;
  right &= __any_sync(half, lane == 20) == (lane >= 16);
  right &= __all_sync(half, lane >= 16) == (lane >= 16);
  right &= __match_any_sync(0xffffffff, lane % 2) == (lane % 2 ? 0xaaaaaaaa : 0x55555555);
  if (lane < 16) __syncwarp(0xffff);
  results[blockIdx.x * blockDim.x + threadIdx.x] = right & (__syncthreads_count(lane < 7) == 7);
}

bool agrees_in_warps(bool) {
  int* results = device_array<int>(96);
  launch("warp_functions", warp_functions, 3, 32, 0, nullptr, results);
  return host_copy(results, 96) == std::vector<int>(96, 1);
}

}  // namespace

const std::vector<Case> arithmetic_cases = {
    {"float16 rounding", false, rounds_half},
    {"bfloat16 rounding", false, rounds_bfloat16},
    {"a product of float16", true, multiplies<__half, false>},
    {"a product of float16 by rows", true, multiplies<__half, true>},
    {"a product of bfloat16", true, multiplies<__nv_bfloat16, false>},
    {"a product of bfloat16 by rows", true, multiplies<__nv_bfloat16, true>},
    {"what tensor cores cut off", false, cuts},
    {"shuffles and votes", false, agrees_in_warps},
};
