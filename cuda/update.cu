// θ ← decay·θ + rate·X: weight decay, the scale of the update and the direction in one pass.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

template <typename T>
__global__ void update_kernel(const __grid_constant__ Table<Matrix> matrices, int64_t rows, int64_t columns, const T* x,
                              int64_t pitch, int64_t stride, const uint32_t* gate) {
  if (*gate != 0) return;
  constexpr int kSize = Chunk<T>::kSize;
  const Matrix& matrix = matrices.entries[blockIdx.y];
  const float decay = matrix.scalars->decay;
  const float rate = matrix.scalars->rate;
  if (decay == 1 && rate == 0) return;
  const bool whole_words = columns % 4 == 0 && aligned(matrix.data);
  const T* const in = x + int64_t(blockIdx.y) * stride;
  const int64_t chunks_of_a_row = pitch / kSize;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t row = i / chunks_of_a_row;
    const int64_t first = i % chunks_of_a_row * kSize;
    const Chunk<T> chunk = load_chunk(in + row * pitch + first);
    for (int part = 0; part < kSize; part += 4) {
      const int64_t column = first + part;
      if (column >= columns) break;
      const int count = int(min(columns - column, int64_t(4)));
      const int64_t at = row * columns + column;
      Quad theta = decay == 0 ? Quad{} : load_quad(matrix.data, at, count, whole_words);
      for (int e = 0; e < 4; ++e) {
        const float direction = to_float(chunk.elements[part + e]);
        theta.v[e] = decay == 0 ? rate * direction : decay * theta.v[e] + rate * direction;
      }
      store_quad(matrix.data, at, count, whole_words, theta);
    }
  }
}

void CudaQueue::update(std::span<const Batch> batches, std::span<const Operand> x) {
  for (size_t i = 0; i < batches.size(); ++i) {
    const StoredMatrices m = stored(x[i]);
    with_element(precision_, [&](auto element) {
      using T = decltype(element);
      launch("update", update_kernel<T>, pass_grid(m.stride, x[i].count), kPassThreads, 0, stream_,
             table_of(batches[i]), m.rows, m.columns, static_cast<const T*>(m.data), m.pitch, m.stride, gate_);
    });
  }
}

}  // namespace root_optimizer::cuda
