// out ← b·z + a·I.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

template <typename T>
__global__ void add_identity_kernel(T* out, const T* z, int64_t rows, int64_t pitch, int64_t stride, float a, float b) {
  const int64_t first_of_matrix = int64_t(blockIdx.y) * stride;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  constexpr int kSize = Chunk<T>::kSize;
  const int64_t chunks_of_a_row = pitch / kSize;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t diagonal = i / chunks_of_a_row - i % chunks_of_a_row * kSize;
    Chunk<T> chunk = load_chunk(z + first_of_matrix + i * kSize);
    for (int e = 0; e < kSize; ++e) {
      chunk.elements[e] = from_float<T>(b * to_float(chunk.elements[e]) + (e == diagonal ? a : 0));
    }
    store_chunk(out + first_of_matrix + i * kSize, chunk);
  }
}

void CudaQueue::add_identity(const Operand& out, const Operand& z, float a, float b) {
  const StoredMatrices m = stored(z);
  with_element(precision_, [&](auto element) {
    using T = decltype(element);
    launch("add_identity", add_identity_kernel<T>, pass_grid(m.stride, z.count), kPassThreads, 0, stream_,
           static_cast<T*>(out.storage), static_cast<const T*>(m.data), m.rows, m.pitch, m.stride, a, b);
  });
}

}  // namespace root_optimizer::cuda
