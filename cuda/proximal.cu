// X ← B / (‖B‖_F + 1e-7), B = clamp(U, −ε, ε), in the precision of the products, after M and ε have been brought up to
// date. X lies as the batch does, rows padded with zeros.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

__global__ void momentum_kernel(const __grid_constant__ Table<Matrix> matrices, int64_t size, const GradientNote* notes,
                                const uint32_t* gate) {
  if (*gate != 0) return;
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const float mu = matrix.scalars->mu;
  const GradientClip clip = clip_of(notes, matrix.index);
  if (notes != nullptr && blockIdx.x == 0 && threadIdx.x == 0) remember(*matrix.thresholds, notes[matrix.index]);
  const bool whole_words = aligned(matrix.momentum) && aligned(matrix.gradient);
  for_each_quad(size, [&](int64_t i, int count) {
    Quad m = load_quad(matrix.momentum, i, count, whole_words);
    const Quad g = load_quad(matrix.gradient, i, count, whole_words);
    for (int e = 0; e < 4; ++e) m.v[e] = next_momentum(m.v[e], clipped(g.v[e], clip), mu);
    store_quad(matrix.momentum, i, count, whole_words, m);
  });
}

// Sums in float64, because squares of float32 overflow from 1e19 on.
__global__ void sum_squares(const __grid_constant__ Table<Matrix> matrices, int64_t size, const Forming forming,
                            double* partial) {
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const LookAhead u(matrix, forming);
  const float limit = clip_limit_of(matrix, forming);
  double sum = 0;
  for_each_quad(size, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const double kept = clamp(x.v[e], limit);
      sum += kept * kept;
    }
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// One block a matrix.
__global__ void finish_norm(const double* partial, int count, double* factor) {
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += kPassThreads) sum += partial[int64_t(blockIdx.x) * count + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) factor[blockIdx.x] = 1 / (sqrt(sum) + 1e-7);
}

template <typename T>
__global__ void write_operand(const __grid_constant__ Table<Matrix> matrices, int64_t rows, int64_t columns,
                              const Forming forming, const double* factors, T* x, T* low, int64_t pitch,
                              int64_t stride) {
  constexpr int kSize = Chunk<T>::kSize;
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const LookAhead u(matrix, forming, columns);
  const float limit = clip_limit_of(matrix, forming);
  const double factor = factors[blockIdx.y];
  const int64_t first_of_matrix = int64_t(blockIdx.y) * stride;
  const int64_t chunks_of_a_row = pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t row = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    Chunk<T> chunk;
    Chunk<T> second;
    for (int part = 0; part < kSize; part += 4) {
      const int64_t column = first + part;
      const int count = int(min(max(columns - column, int64_t(0)), int64_t(4)));
      const Quad from = count > 0 ? u.quad(row * columns + column, count) : Quad{};
      for (int e = 0; e < 4; ++e) {
        const float value = float(clamp(from.v[e], limit) * factor);
        const T rounded = from_float<T>(value);
        chunk.elements[part + e] = rounded;
        second.elements[part + e] = from_float<T>((value - to_float(rounded)) * kLowScale<T>);
      }
    }
    const int64_t at = first_of_matrix + row * pitch + first;
    store_chunk(x + at, chunk);
    if (low != nullptr) store_chunk(low + at, second);
  }
}

size_t norm_bytes(int64_t size, int64_t count) {
  return Arena::padded(size_t(count) * pass_grid(size, 1).x * sizeof(double)) +
         Arena::padded(size_t(count) * sizeof(double));
}

void CudaQueue::proximal(std::span<const Batch> batches, std::span<Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) {
    if (batches[i].matrices[0].gradient != nullptr) {
      launch("momentum", momentum_kernel, pass_grid(batches[i]), kPassThreads, 0, stream_, table_of(batches[i]),
             batches[i].size(), forming(batches[i], notes_).notes, gate_);
    }
    if (batches[i].clips) threshold({&batches[i], 1});
    x[i] = operand(batches[i].rows, batches[i].columns, batches[i].count(), precision_, x[i].two_parts);
    write_normalized(batches[i], x[i]);
  }
}

void CudaQueue::write_normalized(const Batch& batch, const Operand& x) {
  const size_t mark = arena_.mark();
  const Table<Matrix> table = table_of(batch);
  const Forming how = forming(batch, notes_);
  const dim3 grid = pass_grid(batch);
  auto* partial = take<double>(size_t(batch.count()) * grid.x);
  auto* factors = take<double>(size_t(batch.count()));
  launch("sum_squares", sum_squares, grid, kPassThreads, 0, stream_, table, batch.size(), how, partial);
  launch("finish_norm", finish_norm, unsigned(batch.count()), kPassThreads, 0, stream_, partial, int(grid.x), factors);
  const StoredMatrices m = stored(x);
  with_element(precision_, [&](auto element) {
    using T = decltype(element);
    launch("write_operand", write_operand<T>, pass_grid(m.stride, batch.count()), kPassThreads, 0, stream_, table,
           m.rows, m.columns, how, factors, static_cast<T*>(m.data), static_cast<T*>(m.low), m.pitch, m.stride);
  });
  arena_.rewind(mark);
}

}  // namespace root_optimizer::cuda
