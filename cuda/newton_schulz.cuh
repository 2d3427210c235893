#pragma once

// All iterations of small matrices in one launch, a block a matrix: those of native/newton_schulz.cpp, product by
// product and to the bit. Launches would take longer than the products do.
//
// The squares R, P, S and Z stay in shared memory. X passes through it in strips of its long side, for the Gram product
// and for X ← pX + XP, which a strip can do in its own place. The strips lie where squares do that are not in use.

#include "batch.cuh"
#include "gemm_tensor.cuh"

namespace root_optimizer::cuda {

/// An iteration of a plan, and where in a leg it is.
struct Iteration {
  double a;
  float b, c;
  bool begins;  ///< a leg
  bool ends;    ///< the leg
  bool is_last;
  bool x_has_two_parts, next_has_two_parts;
};

/// What becomes of the result: an update of these matrices' data, unless the gate is closed, or X if there are none.
struct Outcome {
  const Matrix* matrices;
  const uint32_t* gate;
};

/// The sizes of what a block works on.
template <int kSide_, bool kWide_>
struct SmallTile {
  static constexpr int kSide = kSide_;       // the short side, padded
  static constexpr int kLength = kSide / 2;  // of a strip, along the long side
  static constexpr bool kWide = kWide_;
  static constexpr int kThreads = 2 * kSide;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kSquareChunks = kSide * kSide / 8;
  static constexpr int kStripChunks = kSide * kLength / 8;
  static constexpr int kStripRows = kWide ? kSide : kLength;
  static constexpr int kRowChunks = (kWide ? kLength : kSide) / 8;  // of a strip
  static constexpr int kSharedBytes = 4 * kSquareChunks * 16;
};

/// Calls use(row, column, x, y, …) for the pairs of a tile of 16 × 16 sums that a lane holds, and for the pairs of what
/// lies alike.
template <typename Use>
__device__ __forceinline__ void for_pairs(float (&sum)[2][4], float (&other)[2][4], Use use) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int half = 0; half < 4; half += 2) {
      use(half * 4 + lane / 4, j * 8 + lane % 4 * 2, sum[j][half], sum[j][half + 1], other[j][half],
          other[j][half + 1]);
    }
  }
}
template <typename Use>
__device__ __forceinline__ void for_pairs(float (&sum)[2][4], Use use) {
  for_pairs(sum, sum, [&](int row, int column, float& x, float& y, float&, float&) { use(row, column, x, y); });
}

/// sum += a · b over `depth`, for a tile of 16 × 16. `load` gets fragments at a place of the operand and of the depth.
template <typename Element, typename LoadA, typename LoadB>
__device__ void accumulate(float (&sum)[2][4], int depth, LoadA load_a, LoadB load_b) {
  const int lane = threadIdx.x % 32;
  const int first = lane / 8 % 2 * 8;
  const int second = lane / 16 * 8;
  for (int k = 0; k < depth; k += 16) {
    uint32_t rows[4];
    uint32_t columns[4];
    load_a(rows, first, k + second);
    load_b(columns, second, k + first);
    multiply_accumulate(sum[0], rows, {columns[0], columns[1]}, Element());
    multiply_accumulate(sum[1], rows, {columns[2], columns[3]}, Element());
  }
}

/// Elements [i, i + count) of an array, where count is 1 or 2. If `whole`, both are moved at once.
__device__ inline float2 load_pair(const float* array, int64_t i, int count, bool whole) {
  if (whole) return *reinterpret_cast<const float2*>(array + i);
  return make_float2(array[i], count > 1 ? array[i + 1] : 0);
}
__device__ inline void store_pair(float* array, int64_t i, int count, bool whole, float2 pair) {
  if (whole) {
    *reinterpret_cast<float2*>(array + i) = pair;
    return;
  }
  array[i] = pair.x;
  if (count > 1) array[i + 1] = pair.y;
}

/// One block's matrix. All members are called by the whole block.
template <typename Element, typename T>
class SmallIteration {
 public:
  using Square = Chunk<Element>*;

  __device__ SmallIteration(const StoredMatrices& x, const Outcome& outcome, int64_t matrix, Square shared)
      : x_(x),
        updated_(outcome.matrices == nullptr ? nullptr : outcome.matrices + matrix),
        gate_(outcome.gate),
        hi_(static_cast<Element*>(x.data) + matrix * x.stride),
        lo_(x.low == nullptr ? nullptr : static_cast<Element*>(x.low) + matrix * x.stride),
        side_(int(T::kWide ? x.rows : x.columns)),
        length_(T::kWide ? x.columns : x.rows),
        tiles_((side_ + 15) / 16),
        warp_(int(threadIdx.x) / 32) {
    for (int i = 0; i < 4; ++i) squares_[i] = shared + i * T::kSquareChunks;
  }

  __device__ void run(const Iteration* iterations, int count) {
    auto& [r, p, s, free] = squares_;
    double factor_of_x = 0;
    for (int i = 0; i < count; ++i) {
      const Iteration k = iterations[i];
      const float a = float(k.a);
      if (k.begins) gram(r, p);
      const bool alone = k.begins && k.ends;
      const bool z_is_p = k.begins && (alone || k.x_has_two_parts) && k.c != 0;
      Square z = r;
      float factor = k.b;
      if (k.c != 0) {
        z = z_is_p ? p : free;
        factor = 1;
        multiply(z, r, r, k.c, r, k.b, nullptr, 0);
      }
      if (alone) {
        update(z, factor, float(k.a), k, z == r ? free : r);
        continue;
      }
      if (k.begins) {
        if (!z_is_p) add_identity(p, z, k.x_has_two_parts ? 0 : a, factor);
        factor_of_x = k.x_has_two_parts ? k.a : 0;
      } else {
        multiply(s, p, z, factor, p, a, z, float(factor_of_x * factor));
        swap(p, s);
        factor_of_x *= k.a;
      }
      if (k.ends) {
        update(p, 1, float(factor_of_x), k, r);
        continue;
      }
      multiply(s, r, z, factor, r, a, nullptr, 0);
      multiply(k.c == 0 ? free : r, z, s, factor, s, a, nullptr, 0);
      if (k.c == 0) swap(r, free);
    }
  }

 private:
  static __device__ void swap(Square& a, Square& b) {
    const Square before = a;
    a = b;
    b = before;
  }

  static __device__ Element& element(Square square, int row, int column) {
    return square[swizzled<T::kSide / 8>(row, column / 8)].elements[column % 8];
  }

  /// Stores what lies on and below the diagonal twice.
  static __device__ void store(Square out, int row, int column, float value) {
    if (column > row) return;
    const Element rounded = Element(value);
    element(out, row, column) = rounded;
    element(out, column, row) = rounded;
  }

  /// The row of tiles, and the tile of that row, of a number below the diagonal.
  static __device__ void find_tile(int number, int& row, int& column) {
    row = 0;
    column = number;
    while (column > row) column -= ++row;
  }
  __device__ int tile_count() const { return tiles_ * (tiles_ + 1) / 2; }

  /// out ← α·ab + β·c + γ·d, of symmetric squares that commute. `out` is none of the others.
  __device__ void multiply(Square out, Square a, Square b, float alpha, Square c, float beta, Square d, float gamma) {
    for (int number = warp_; number < tile_count(); number += T::kWarps) {
      int row;
      int column;
      find_tile(number, row, column);
      float sum[2][4] = {};
      accumulate<Element>(
          sum, tiles_ * 16,
          [&](uint32_t(&f)[4], int outer, int k) {
            load_fragment<T::kSide, T::kSide, true>(f, a, row * 16 + outer, k);
          },
          [&](uint32_t(&f)[4], int outer, int k) {
            load_fragment<T::kSide, T::kSide, true>(f, b, column * 16 + outer, k);
          });
      for_pairs(sum, [&](int i, int j, float x, float y) {
        i += row * 16;
        j += column * 16;
        x *= alpha;
        y *= alpha;
        if (gamma != 0) {
          x = fmaf(gamma, float(element(d, i, j)), x);
          y = fmaf(gamma, float(element(d, i, j + 1)), y);
        }
        if (beta != 0) {
          x = fmaf(beta, float(element(c, i, j)), x);
          y = fmaf(beta, float(element(c, i, j + 1)), y);
        }
        store(out, i, j, x);
        store(out, i, j + 1, y);
      });
    }
    __syncthreads();
  }

  /// out ← b·z + a·I.
  __device__ void add_identity(Square out, Square z, float a, float b) {
    for (int index = threadIdx.x; index < tiles_ * 16 * tiles_ * 16; index += T::kThreads) {
      const int row = index / (tiles_ * 16);
      const int column = index % (tiles_ * 16);
      const float diagonal = row == column && row < side_ ? a : 0;
      element(out, row, column) = Element(b * float(element(z, row, column)) + diagonal);
    }
    __syncthreads();
  }

  __device__ int strip_count() const { return int((length_ + T::kLength - 1) / T::kLength); }

  /// Calls use(slot, place, valid) for the chunks of a strip that fall to this thread: where they lie in shared memory
  /// and in X, and whether they lie in X at all.
  template <typename Use>
  __device__ void for_chunks(int strip, Use use) const {
    for (int index = threadIdx.x; index < T::kStripChunks; index += T::kThreads) {
      const int row = index / T::kRowChunks;
      const int chunk = index % T::kRowChunks;
      const int64_t x_row = row + (T::kWide ? 0 : int64_t(strip) * T::kLength);
      const int64_t x_column = chunk * 8 + (T::kWide ? int64_t(strip) * T::kLength : 0);
      use(swizzled<T::kRowChunks>(row, chunk), x_row * x_.pitch + x_column, x_row < x_.rows && x_column < x_.pitch);
    }
  }

  __device__ void fetch(Square room, const Element* from, int strip) const {
    for_chunks(strip,
               [&](int slot, int64_t at, bool valid) { copy_async_16(&room[slot], valid ? from + at : from, valid); });
  }

  /// out ← the Gram matrix of X. `room` is for two strips.
  __device__ void gram(Square out, Square room) {
    constexpr int kTiles = T::kSide / 16;
    constexpr int kOwn = (kTiles * (kTiles + 1) / 2 + T::kWarps - 1) / T::kWarps;  // tiles of a warp
    float sum[kOwn][2][4] = {};
    const auto for_own = [&](auto body) {
#pragma unroll
      for (int t = 0; t < kOwn; ++t) {
        const int number = warp_ + t * T::kWarps;
        if (number >= tile_count()) continue;
        int row;
        int column;
        find_tile(number, row, column);
        body(sum[t], row * 16, column * 16);
      }
    };
    fetch(room, hi_, 0);
    commit_copies();
    for (int strip = 0; strip < strip_count(); ++strip) {
      if (strip + 1 < strip_count()) fetch(room + (strip + 1) % 2 * T::kStripChunks, hi_, strip + 1);
      commit_copies();
      wait_copies<1>();
      __syncthreads();
      const Square own = room + strip % 2 * T::kStripChunks;
      const auto load = [&](uint32_t(&f)[4], int outer, int k) {
        load_fragment<T::kSide, T::kLength, T::kWide>(f, own, outer, k);
      };
      for_own([&](float(&tile)[2][4], int row, int column) {
        accumulate<Element>(
            tile, T::kLength, [&](uint32_t(&f)[4], int outer, int k) { load(f, row + outer, k); },
            [&](uint32_t(&f)[4], int outer, int k) { load(f, column + outer, k); });
      });
      __syncthreads();
    }
    for_own([&](float(&tile)[2][4], int row, int column) {
      for_pairs(tile, [&](int i, int j, float x, float y) {
        store(out, row + i, column + j, x);
        store(out, row + i, column + j + 1, y);
      });
    });
    __syncthreads();
  }

  /// X ← βX + α·(X by p). `first` and the two squares that are neither it nor p make room for strips.
  __device__ void update(Square p, float alpha, float beta, const Iteration& k, Square first) {
    Square second = nullptr;
    for (int i = 3; i >= 0; --i) {
      if (squares_[i] != p && squares_[i] != first) second = squares_[i];
    }
    constexpr int kDown = T::kStripRows / 16;
    constexpr int kAcross = T::kRowChunks / 2;
    constexpr int kOwn = kDown * kAcross / T::kWarps;
    static_assert(kOwn * T::kWarps == kDown * kAcross);
    const auto fetch_both = [&](int strip) {
      if (strip < strip_count()) {
        fetch(first + strip % 2 * T::kStripChunks, hi_, strip);
        if (k.x_has_two_parts) fetch(second + strip % 2 * T::kStripChunks, lo_, strip);
      }
      commit_copies();
    };
    fetch_both(0);
    for (int strip = 0; strip < strip_count(); ++strip) {
      fetch_both(strip + 1);
      wait_copies<1>();
      __syncthreads();
      const Square hi = first + strip % 2 * T::kStripChunks;
      const Square lo = second + strip % 2 * T::kStripChunks;
      float sum[kOwn][2][4] = {};
#pragma unroll
      for (int t = 0; t < kOwn; ++t) {
        const int row = (warp_ * kOwn + t) / kAcross * 16;
        const int column = (warp_ * kOwn + t) % kAcross * 16;
        // Tiles past the short side have no fragments of p.
        if ((T::kWide ? row : column) >= tiles_ * 16) continue;
        accumulate<Element>(
            sum[t], tiles_ * 16,
            [&](uint32_t(&f)[4], int outer, int depth) {
              load_fragment<T::kWide ? T::kSide : T::kLength, T::kSide, true>(f, T::kWide ? p : hi, row + outer, depth);
            },
            [&](uint32_t(&f)[4], int outer, int depth) {
              load_fragment<T::kWide ? T::kLength : T::kSide, T::kSide, !T::kWide>(f, T::kWide ? hi : p, column + outer,
                                                                                   depth);
            });
      }
      __syncthreads();
      // The sums become the result, and where X is stored, its first parts.
#pragma unroll
      for (int t = 0; t < kOwn; ++t) {
        const int row = (warp_ * kOwn + t) / kAcross * 16;
        const int column = (warp_ * kOwn + t) % kAcross * 16;
        for_pairs(sum[t], [&](int i, int j, float& x, float& y) {
          const int slot = swizzled<T::kRowChunks>(row + i, (column + j) / 8);
          auto& high = *reinterpret_cast<Pair<Element>*>(&hi[slot].elements[j % 8]);
          auto& low = *reinterpret_cast<Pair<Element>*>(&lo[slot].elements[j % 8]);
          x *= alpha;
          y *= alpha;
          if (k.x_has_two_parts) {
            x = fmaf(beta / kLowScale<Element>, float(low.x), x);
            y = fmaf(beta / kLowScale<Element>, float(low.y), y);
          }
          if (beta != 0) {
            x = fmaf(beta, float(high.x), x);
            y = fmaf(beta, float(high.y), y);
          }
          high = {Element(x), Element(y)};
          if (k.next_has_two_parts) {
            low = {Element((x - float(high.x)) * kLowScale<Element>),
                   Element((y - float(high.y)) * kLowScale<Element>)};
          }
        });
      }
      __syncthreads();
      if (k.is_last && updated_ != nullptr) {
        update_data(sum, strip);
        continue;
      }
      for_chunks(strip, [&](int slot, int64_t at, bool valid) {
        if (!valid) return;
        *reinterpret_cast<Chunk<Element>*>(hi_ + at) = hi[slot];
        if (k.next_has_two_parts) *reinterpret_cast<Chunk<Element>*>(lo_ + at) = lo[slot];
      });
      __syncthreads();
    }
  }

  /// θ ← decay·θ + rate·result, for the sums of a strip.
  template <int kOwn>
  __device__ void update_data(float (&sum)[kOwn][2][4], int strip) const {
    const ElementUpdate update(*updated_->scalars);
    if (*gate_ != 0 || !update.changes()) return;
    float* const data = updated_->data;
    const bool even = x_.columns % 2 == 0 && reinterpret_cast<uintptr_t>(data) % 8 == 0;
    const int64_t first_row = T::kWide ? 0 : int64_t(strip) * T::kLength;
    const int64_t first_column = T::kWide ? int64_t(strip) * T::kLength : 0;
    float theta[kOwn][2][4] = {};
    const auto for_own = [&](auto body) {
      constexpr int kAcross = T::kRowChunks / 2;
#pragma unroll
      for (int t = 0; t < kOwn; ++t) {
        const int64_t row = first_row + (warp_ * kOwn + t) / kAcross * 16;
        const int64_t column = first_column + (warp_ * kOwn + t) % kAcross * 16;
        for_pairs(sum[t], theta[t], [&](int i, int j, float& x, float& y, float& before, float& after) {
          const int count = int(min(x_.columns - (column + j), int64_t(2)));
          if (row + i >= x_.rows || count <= 0) return;
          body((row + i) * x_.columns + column + j, count, x, y, before, after);
        });
      }
    };
    // All loads come first, because each takes as long as hundreds of instructions.
    if (update.reads) {
      for_own([&](int64_t at, int count, float, float, float& a, float& b) {
        const float2 pair = load_pair(data, at, count, even);
        a = pair.x;
        b = pair.y;
      });
    }
    for_own([&](int64_t at, int count, float x, float y, float a, float b) {
      store_pair(data, at, count, even, make_float2(update.next(a, x), update.next(b, y)));
    });
  }

  const StoredMatrices& x_;
  const Matrix* const updated_;
  const uint32_t* const gate_;
  Element* const hi_;
  Element* const lo_;
  const int side_;
  const int64_t length_;
  const int tiles_;
  const int warp_;
  Square squares_[4];  // r, p, s and a free one, in turns
};

}  // namespace root_optimizer::cuda
