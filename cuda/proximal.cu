// M ← μM + G and X ← B / (‖B‖_F + 1e-7), B = clamp(U, −ε, ε), in one pass and in the precision of the products. The
// check has noted ε and ‖B‖. X lies as the batch does, rows padded with zeros.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

template <typename T>
__global__ void __launch_bounds__(kPassThreads, 4)
    proximal_kernel(const __grid_constant__ Table<Matrix> matrices, int64_t rows, int64_t columns,
                    const Forming forming, const uint32_t* gate, T* x, T* low, int64_t pitch, int64_t stride) {
  constexpr int kSize = Chunk<T>::kSize;
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const CheckNote& note = forming.notes[matrix.index];
  const bool open = *gate == 0;
  if (open && blockIdx.x == 0 && threadIdx.x == 0) {
    if (forming.clips) matrix.thresholds->threshold = note.threshold;
    if (forming.clips_gradient) remember(*matrix.thresholds, note);
  }
  const bool stores = open && matrix.gradient != nullptr;
  const LookAhead u(matrix, forming, columns);
  const float limit = clip_limit(note.threshold);
  const double factor = note.factor;
  const int64_t first_of_matrix = int64_t(blockIdx.y) * stride;
  const int64_t chunks_of_a_row = pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t row = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    Chunk<T> chunk;
    Chunk<T> second;
#pragma unroll
    for (int part = 0; part < kSize; part += 4) {
      const int64_t column = first + part;
      const int count = int(min(max(columns - column, int64_t(0)), int64_t(4)));
      Quad next{};
      const Quad from = count > 0 ? u.quad(row * columns + column, count, next) : Quad{};
      if (stores && count > 0) store_quad(matrix.momentum, row * columns + column, count, u.whole_words, next);
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

void CudaQueue::proximal(std::span<const Batch> batches, std::span<Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = batches[i];
    x[i] = operand(batch.rows, batch.columns, batch.count(), precision_, x[i].two_parts);
    const StoredMatrices m = stored(x[i]);
    with_element(precision_, [&](auto element) {
      using T = decltype(element);
      launch("proximal", proximal_kernel<T>, pass_grid(m.stride, batch.count()), kPassThreads, 0, stream_,
             table_of(batch), m.rows, m.columns, forming(batch, notes_), gate_, static_cast<T*>(m.data),
             static_cast<T*>(m.low), m.pitch, m.stride);
    });
  }
}

}  // namespace root_optimizer::cuda
