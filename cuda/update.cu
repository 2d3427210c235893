// θ ← decay·θ + rate·X: weight decay, the scale of the update and the direction in one pass, where the last product has
// not done it (gemm_result.cuh). A normalized batch first brings v up to date, v ← β₂v + (1 − β₂)·mean of X² row by
// row, and the pass divides the rows of X by the root of v.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

constexpr int kWarps = kPassThreads / 32;

// Columns are summed slice by slice. The division depends on nothing but the shape, so the sums do not either.
struct Slices {
  int64_t length;  // in rows
  int64_t count;
};

static Slices slices_of(int64_t rows, int64_t columns) {
  constexpr int64_t kShortest = 32;
  constexpr int64_t kMost = 64;
  constexpr int64_t kEnoughSums = 1 << 17;  // these occupy a device
  const int64_t most = std::clamp<int64_t>(kEnoughSums / columns, 1, kMost);
  const int64_t length = std::max((rows + most - 1) / most, kShortest);
  return {.length = length, .count = (rows + length - 1) / length};
}

// Sums the squares of each row, a warp a row.
template <typename T>
__global__ void sum_rows(const T* x, int64_t rows, int64_t pitch, int64_t stride, double* sums) {
  constexpr int kSize = Chunk<T>::kSize;
  const int lane = int(threadIdx.x) % 32;
  for (int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; row < rows; row += int64_t(gridDim.x) * kWarps) {
    const T* const in = x + int64_t(blockIdx.y) * stride + row * pitch;
    double sum = 0;
    for (int64_t first = lane * kSize; first < pitch; first += 32 * kSize) {
      const Chunk<T> chunk = load_chunk(in + first);
      for (int e = 0; e < kSize; ++e) {
        const double value = to_float(chunk.elements[e]);
        sum += value * value;
      }
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_down_sync(0xffffffffu, sum, distance);
    if (lane == 0) sums[int64_t(blockIdx.y) * rows + row] = sum;
  }
}

// Sums the squares of each column over each slice of rows, a thread a chunk of columns.
template <typename T>
__global__ void sum_columns(const T* x, int64_t rows, int64_t columns, int64_t pitch, int64_t stride,
                            const Slices slices, double* sums) {
  constexpr int kSize = Chunk<T>::kSize;
  const int64_t chunks_of_a_row = pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  const int64_t first_thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t i = first_thread; i < slices.count * chunks_of_a_row; i += threads) {
    const int64_t slice = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    const T* const in = x + int64_t(blockIdx.y) * stride + first;
    double sum[kSize] = {};
    for (int64_t row = slice * slices.length; row < min((slice + 1) * slices.length, rows); ++row) {
      const Chunk<T> chunk = load_chunk(in + row * pitch);
      for (int e = 0; e < kSize; ++e) {
        const double value = to_float(chunk.elements[e]);
        sum[e] += value * value;
      }
    }
    for (int e = 0; e < kSize; ++e) {
      if (first + e < columns) sums[(int64_t(blockIdx.y) * slices.count + slice) * columns + first + e] = sum[e];
    }
  }
}

// v ← β₂v + (1 − β₂)·mean of X², and the factors 1 / (√v + 1e-8), all scaled so that X keeps its norm. One block a
// matrix, whose `rows` rows have `length` elements and sums of squares in `slices` parts.
__global__ void find_row_factors(const Matrix* matrices, int64_t rows, int64_t length, int64_t slices,
                                 const double* sums, float* factors, const uint32_t* gate) {
  if (*gate != 0) return;
  SHARED_ARRAY(double, scale, 1);
  const Matrix& matrix = matrices[blockIdx.x];
  const double beta2 = matrix.scalars->beta2;
  const double* const in = sums + int64_t(blockIdx.x) * slices * rows;
  float* const out = factors + int64_t(blockIdx.x) * rows;
  double before = 0;
  double after = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kPassThreads) {
    double squares = 0;
    for (int64_t s = 0; s < slices; ++s) squares += in[s * rows + i];
    const float v = float(beta2 * matrix.row_second_moment[i] + (1 - beta2) * squares / double(length));
    matrix.row_second_moment[i] = v;
    const double factor = 1 / (sqrt(double(v)) + 1e-8);
    before += squares;
    after += squares * factor * factor;
    out[i] = float(factor);
  }
  before = block_sum(before);
  __syncthreads();
  after = block_sum(after);
  if (threadIdx.x == 0) *scale = after > 0 ? sqrt(before / after) : 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < rows; i += kPassThreads) out[i] = float(out[i] * *scale);
}

// The factors on the elements of X: none, one for each row, or one for each column.
enum class Factors { none, of_rows, of_columns };

template <typename T, Factors kFactors>
__global__ void update_kernel(const Matrix* matrices, int64_t rows, int64_t columns, const T* x, int64_t pitch,
                              int64_t stride, const float* factors, const uint32_t* gate) {
  if (*gate != 0) return;
  constexpr int kSize = Chunk<T>::kSize;
  const Matrix& matrix = matrices[blockIdx.y];
  const ElementUpdate update(*matrix.scalars);
  if (!update.changes()) return;
  const bool whole_words = columns % 4 == 0 && aligned(matrix.data);
  const T* const in = x + int64_t(blockIdx.y) * stride;
  const float* const own = factors + int64_t(blockIdx.y) * (kFactors == Factors::of_rows ? rows : columns);
  const int64_t chunks_of_a_row = pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t row = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    const Chunk<T> chunk = load_chunk(in + row * pitch + first);
    const float of_row = kFactors == Factors::of_rows ? own[row] : 1;
    for (int part = 0; part < kSize; part += 4) {
      const int64_t column = first + part;
      if (column >= columns) break;
      const int count = int(min(columns - column, int64_t(4)));
      const int64_t at = row * columns + column;
      Quad theta = update.reads ? load_quad(matrix.data, at, count, whole_words) : Quad{};
      for (int e = 0; e < 4; ++e) {
        float direction = to_float(chunk.elements[part + e]);
        if (kFactors == Factors::of_rows) direction *= of_row;
        if (kFactors == Factors::of_columns) direction *= e < count ? own[column + e] : 0;
        theta.v[e] = update.next(theta.v[e], direction);
      }
      store_quad(matrix.data, at, count, whole_words, theta);
    }
  }
}

// For rows that are rows or columns of a matrix, which may be tall or wide.
size_t row_bytes(int64_t long_side, int64_t short_side, int64_t count) {
  const int64_t most =
      std::max(slices_of(long_side, short_side).count * short_side, slices_of(short_side, long_side).count * long_side);
  return Arena::padded(size_t(count * most) * sizeof(double)) +
         Arena::padded(size_t(count * long_side) * sizeof(float));
}

float* CudaQueue::row_factors(const Batch& batch, const Matrix* matrices, const Operand& x) {
  const StoredMatrices m = stored(x);
  const Slices slices = batch.in_out ? slices_of(m.rows, m.columns) : Slices{.length = m.rows, .count = 1};
  const int64_t rows = batch.in_out ? m.columns : m.rows;
  const int64_t length = batch.in_out ? m.rows : m.columns;
  auto* const factors = take<float>(size_t(batch.count() * rows));
  auto* const sums = take<double>(size_t(batch.count() * slices.count * rows));
  with_element(precision_, [&](auto element) {
    using T = decltype(element);
    const T* const data = static_cast<const T*>(m.data);
    const dim3 grid = pass_grid(m.stride, batch.count());
    if (batch.in_out) {
      launch("sum_columns", sum_columns<T>, grid, kPassThreads, 0, stream_, data, m.rows, m.columns, m.pitch, m.stride,
             slices, sums);
    } else {
      launch("sum_rows", sum_rows<T>, grid, kPassThreads, 0, stream_, data, m.rows, m.pitch, m.stride, sums);
    }
  });
  launch("find_row_factors", find_row_factors, unsigned(batch.count()), kPassThreads, 0, stream_, matrices, rows,
         length, slices.count, sums, factors, gate_);
  return factors;
}

template <typename T, Factors kFactors>
static void launch_update(const Matrix* matrices, int64_t count, const StoredMatrices& m, const float* factors,
                          const uint32_t* gate, cudaStream_t stream) {
  launch("update", update_kernel<T, kFactors>, pass_grid(m.stride, count), kPassThreads, 0, stream, matrices, m.rows,
         m.columns, static_cast<const T*>(m.data), m.pitch, m.stride, factors, gate);
}

void CudaQueue::update(std::span<const Batch> batches, std::span<const Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = batches[i];
    const size_t mark = arena_.mark();
    const Matrix* const matrices = tables_.put(batch.matrices);
    const float* const factors = batch.normalized ? row_factors(batch, matrices, x[i]) : nullptr;
    with_element(precision_, [&](auto element) {
      using T = decltype(element);
      const auto launch_as = !batch.normalized ? launch_update<T, Factors::none>
                             : batch.in_out    ? launch_update<T, Factors::of_columns>
                                               : launch_update<T, Factors::of_rows>;
      launch_as(matrices, batch.count(), stored(x[i]), factors, gate_, stream_);
    });
    arena_.rewind(mark);
  }
}

}  // namespace root_optimizer::cuda
