// Products over a batch. Elements of 16 bits are multiplied on tensor cores.

#include "gemm.cuh"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../native/error.h"
#include "batch.cuh"
#include "gemm_float32.cuh"
#include "gemm_hopper.cuh"
#include "gemm_tensor.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

namespace {

struct Device {
  int major, minor, processors;
};

Device current_device() {
  int index;
  Device device;
  require(cudaGetDevice(&index), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, index), "cudaDeviceGetAttribute");
  require(cudaDeviceGetAttribute(&device.minor, cudaDevAttrComputeCapabilityMinor, index), "cudaDeviceGetAttribute");
  require(cudaDeviceGetAttribute(&device.processors, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
  return device;
}

/// What multiplies a tile.
enum class Unit { wgmma, mma, float32 };

/// A tile that products can take.
struct TileChoice {
  const char* name;  ///< rows, columns and depth; "w" is for wgmma, "f" for float32
  Unit unit;
  int rows, columns;
  double rate;  ///< how fast a busy multiprocessor multiplies, relative to the fastest tile of the precision
  double ends;  ///< what a tile takes before and after its products, as a depth that would take as long
};

// Those of a precision from the fastest on. The ends of the tiles for wgmma are chosen so that these are taken as their
// times on an H200 ask for (docs/notes/2026-11-27-h200.md). The other tiles have those of the smaller one, not
// measured. A tile that has a multiprocessor to itself has the longer ends, because no other tile is multiplied
// meanwhile.
constexpr TileChoice kTiles[] = {
    {"w256x128x64", Unit::wgmma, 256, 128, 1.0, 850},   {"w128x128x64", Unit::wgmma, 128, 128, 0.92, 600},
    {"128x128x32", Unit::mma, 128, 128, 0.6, 600},      {"64x64x32", Unit::mma, 64, 64, 0.4, 600},
    {"f128x128x16", Unit::float32, 128, 128, 1.0, 600}, {"f64x64x16", Unit::float32, 64, 64, 0.7, 600},
};

/// The time that the busiest multiprocessor takes, in arbitrary units. Small tiles spread the work more evenly and
/// stick out less past the edges, but multiply more slowly.
double time_of(const TileChoice& tile, const Gemm& gemm, const Device& device) {
  const int64_t down = tiles_along(gemm.symmetric ? gemm.out.pitch : gemm.out.rows, tile.rows);
  const int64_t across = tiles_along(gemm.out.pitch, tile.columns);
  const int64_t tiles =
      gemm.count * (gemm.symmetric ? down * (down + 1) / 2 * (tile.rows / tile.columns) : down * across);
  const int64_t most = (tiles + device.processors - 1) / device.processors;
  const int64_t depth = gemm.contraction == Contraction::columns_by_columns ? gemm.a.rows : gemm.a.columns;
  return double(most) * (double(depth) + tile.ends) * tile.rows * tile.columns / tile.rate;
}

/// wgmma is there on compute capability 9.0 alone.
bool is_possible(const TileChoice& tile, Precision precision, const Device& device) {
  if (precision == Precision::float32 || tile.unit == Unit::float32) {
    return precision == Precision::float32 && tile.unit == Unit::float32;
  }
  return tile.unit == Unit::mma || (device.major == 9 && device.minor == 0);
}

/// The tile that ROOT_OPTIMIZER_GEMM names; kTiles' size if it is not set.
size_t forced_tile() {
  const char* const name = std::getenv("ROOT_OPTIMIZER_GEMM");
  if (name == nullptr || *name == '\0') return std::size(kTiles);
  std::string names;
  for (size_t i = 0; i < std::size(kTiles); ++i) {
    if (std::string(name) == kTiles[i].name) return i;
    names += (i == 0 ? "" : ", ") + std::string(kTiles[i].name);
  }
  throw Error("ERR_INVALID_ARGUMENT", "Expected ROOT_OPTIMIZER_GEMM to be one of " + names + ", got " + name);
}

/// The tile of least time, or the one that is forced, where it is possible.
size_t choose_tile(Precision precision, const Gemm& gemm) {
  const Device device = current_device();
  const size_t forced = forced_tile();
  if (forced < std::size(kTiles) && is_possible(kTiles[forced], precision, device)) return forced;
  size_t best = std::size(kTiles);
  for (size_t i = std::size(kTiles); i-- > 0;) {
    if (!is_possible(kTiles[i], precision, device)) continue;
    if (best == std::size(kTiles) || time_of(kTiles[i], gemm, device) <= time_of(kTiles[best], gemm, device)) best = i;
  }
  return best;
}

template <typename Element, Contraction kContraction, bool kSymmetric>
void launch_on_tensor_cores(size_t tile, const Gemm& gemm, cudaStream_t stream) {
  switch (tile) {
    case 0: return launch_gemm_hopper<Element, kContraction, kSymmetric, HopperTile<256, 4>>(gemm, stream);
    case 1: return launch_gemm_hopper<Element, kContraction, kSymmetric, HopperTile<128, 3>>(gemm, stream);
    case 2: return launch_gemm_tensor<Element, kContraction, kSymmetric, TensorTile<128, 32, 4>>(gemm, stream);
    case 3: return launch_gemm_tensor<Element, kContraction, kSymmetric, TensorTile<64, 32, 4>>(gemm, stream);
  }
  throw std::logic_error("There is no such tile");
}

template <Contraction kContraction, bool kSymmetric>
void launch_in_float32(size_t tile, const Gemm& gemm, cudaStream_t stream) {
  switch (tile) {
    case 4: return launch_gemm_float32<kContraction, kSymmetric, Float32Tile<128>>(gemm, stream);
    case 5: return launch_gemm_float32<kContraction, kSymmetric, Float32Tile<64>>(gemm, stream);
  }
  throw std::logic_error("There is no such tile");
}

template <Contraction kContraction, bool kSymmetric>
void launch_gemm_as(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  const size_t tile = choose_tile(precision, gemm);
  switch (precision) {
    case Precision::float16: return launch_on_tensor_cores<__half, kContraction, kSymmetric>(tile, gemm, stream);
    case Precision::bfloat16:
      return launch_on_tensor_cores<__nv_bfloat16, kContraction, kSymmetric>(tile, gemm, stream);
    case Precision::float32: return launch_in_float32<kContraction, kSymmetric>(tile, gemm, stream);
    case Precision::bfloat16x3: break;  // refused when the backend was made
  }
}

/// The addends of a product: c, and either its second parts or d.
void set_addends(Gemm& gemm, const Product& p) {
  if (p.beta != 0) gemm.addends[0] = {stored(p.c), p.beta};
  if (p.beta != 0 && p.c.two_parts) {
    const float scale = p.c.precision == Precision::float16 ? kLowScale<__half> : kLowScale<__nv_bfloat16>;
    gemm.addends[1] = {stored(p.c), p.beta / scale};
    gemm.addends[1].matrices.data = gemm.addends[1].matrices.low;
  }
  if (p.gamma != 0) gemm.addends[1] = {stored(p.d), p.gamma};
}

/// out ← α · the sum of the parts, in their order, on both sides of the diagonal.
template <typename T>
__global__ void add_parts(const __grid_constant__ Gemm gemm, unsigned parts) {
  constexpr int kSize = Chunk<T>::kSize;
  const StoredMatrices& out = gemm.out;
  const int64_t matrix = blockIdx.y;
  const int64_t chunks_of_a_row = out.pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < out.rows * chunks_of_a_row; i += threads) {
    const int64_t row = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    Chunk<T> chunk;
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const int64_t column = first + e;
      float sum = 0;
      if (column < out.columns) {
        const float* const at = gemm.parts + matrix * out.stride + max(row, column) * out.pitch + min(row, column);
        for (unsigned part = 0; part < parts; ++part) sum += at[int64_t(part) * gemm.count * out.stride];
      }
      chunk.elements[e] = from_float<T>(gemm.alpha * sum);
    }
    store_chunk(static_cast<T*>(out.data) + matrix * out.stride + row * out.pitch + first, chunk);
  }
}

}  // namespace

void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  constexpr Contraction kRows = Contraction::rows_by_rows;
  constexpr Contraction kColumns = Contraction::columns_by_columns;
  constexpr Contraction kPlain = Contraction::plain;
  if (gemm.symmetric) {
    if (gemm.contraction == kRows) return launch_gemm_as<kRows, true>(precision, gemm, stream);
    if (gemm.contraction == kColumns) return launch_gemm_as<kColumns, true>(precision, gemm, stream);
  } else {
    if (gemm.contraction == kRows) return launch_gemm_as<kRows, false>(precision, gemm, stream);
    if (gemm.contraction == kPlain) return launch_gemm_as<kPlain, false>(precision, gemm, stream);
  }
  throw std::logic_error("There is no such product");
}

// One float32 sum over a greater depth would lose too much: tensor cores cut off what does not fit, always towards 0.
// Only products without addends are split, which are those of X by itself. What is split depends on the shape alone, so
// that a matrix has the same bits in every batch.
constexpr int64_t kMostDepth = 1 << 14;

// A grid has no more than 65535 parts.
static int64_t part_depth(int64_t depth) {
  constexpr int64_t kMostParts = 65535;
  return kMostDepth * ((depth + kMostDepth * kMostParts - 1) / (kMostDepth * kMostParts));
}

static size_t part_bytes(int64_t depth, int64_t side, int64_t count) {
  return size_t((depth + part_depth(depth) - 1) / part_depth(depth) * count * side * ((side + 7) / 8 * 8)) *
         sizeof(float);
}

size_t split_bytes(Precision precision, int64_t long_side, int64_t short_side, int64_t count) {
  if (precision == Precision::float32 || long_side <= kMostDepth) return 0;
  return Arena::padded(part_bytes(long_side, short_side, count));
}

void CudaQueue::gemm_symmetric(const Product& p) {
  Gemm gemm{.contraction = p.a.is_wide() ? Contraction::rows_by_rows : Contraction::columns_by_columns,
            .symmetric = true,
            .alpha = p.alpha,
            .out = stored(p.out),
            .a = stored(p.a),
            .b = stored(p.b),
            .addends = {},
            .count = p.out.count};
  set_addends(gemm, p);
  const int64_t depth = p.a.long_side();
  if (depth <= kMostDepth || precision_ == Precision::float32 || p.beta != 0 || p.gamma != 0) {
    launch_gemm(precision_, gemm, stream_);
    return;
  }
  const size_t mark = arena_.mark();
  gemm.parts = take<float>(part_bytes(depth, p.out.rows, p.out.count) / sizeof(float));
  gemm.part_depth = part_depth(depth);
  launch_gemm(precision_, gemm, stream_);
  with_element(precision_, [&](auto element) {
    launch("add_parts", add_parts<decltype(element)>, pass_grid(gemm.out.stride, gemm.count), kPassThreads, 0, stream_,
           gemm, part_count(gemm));
  });
  arena_.rewind(mark);
}

// b is symmetric, so its rows serve as its columns if a is tall.
void CudaQueue::gemm(const Product& p) {
  Gemm gemm{.contraction = p.a.is_wide() ? Contraction::plain : Contraction::rows_by_rows,
            .symmetric = false,
            .alpha = p.alpha,
            .out = stored(p.out),
            .a = stored(p.a.is_wide() ? p.b : p.a),
            .b = stored(p.a.is_wide() ? p.a : p.b),
            .addends = {},
            .count = p.out.count};
  set_addends(gemm, p);
  const bool updates = p.update != nullptr && !p.update->normalized && precision_ != Precision::float32;
  if (updates) {
    gemm.update = tables_.put(p.update->matrices);
    gemm.gate = gate_;
  }
  launch_gemm(precision_, gemm, stream_);
  if (p.update != nullptr && !updates) update({p.update, 1}, {&p.out, 1});
}

}  // namespace root_optimizer::cuda
