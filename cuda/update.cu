// θ ← decay·θ + rate·X: weight decay, the scale of the update and the direction in one pass.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer {

namespace {

template <typename T>
__global__ void update_kernel(const __grid_constant__ Table<Item> items, int64_t rows, int64_t columns, const T* x,
                              int64_t pitch, int64_t stride, const uint32_t* gate) {
  if (*gate != 0) return;
  constexpr int kSize = Chunk<T>::kSize;
  const Item& item = items.entries[blockIdx.y];
  const float decay = item.scalars->decay;
  const float rate = item.scalars->rate;
  if (decay == 1 && rate == 0) return;
  const bool whole_words = columns % 4 == 0 && aligned(item.data);
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
      Quad theta = decay == 0 ? Quad{} : load_quad(item.data, at, count, whole_words);
      for (int e = 0; e < 4; ++e) {
        const float direction = to_float(chunk.elements[part + e]);
        theta.v[e] = decay == 0 ? rate * direction : decay * theta.v[e] + rate * direction;
      }
      store_quad(item.data, at, count, whole_words, theta);
    }
  }
}

template <typename T>
__global__ void add_identity_kernel(T* out, const T* z, int64_t rows, int64_t pitch, int64_t stride, float a) {
  const int64_t item = int64_t(blockIdx.y) * stride;
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  constexpr int kSize = Chunk<T>::kSize;
  const int64_t chunks_of_a_row = pitch / kSize;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * chunks_of_a_row; i += threads) {
    const int64_t diagonal = i / chunks_of_a_row - i % chunks_of_a_row * kSize;
    Chunk<T> chunk = load_chunk(z + item + i * kSize);
    for (int e = 0; e < kSize; ++e) {
      chunk.elements[e] = from_float<T>(to_float(chunk.elements[e]) + (e == diagonal ? a : 0));
    }
    store_chunk(out + item + i * kSize, chunk);
  }
}

}  // namespace

void CudaQueue::update(const Batch& batch, const Operand& x) {
  const Matrices m = stored(x);
  with_element(precision_, [&](auto element) {
    using T = decltype(element);
    launch("update", update_kernel<T>, pass_grid(m.stride, batch.items.size()), kPassThreads, 0, stream_,
           table_of(batch.items), m.rows, m.columns, static_cast<const T*>(m.data), m.pitch, m.stride, gate_);
  });
}

void CudaQueue::add_identity(const Operand& out, const Operand& z, float a) {
  const Matrices m = stored(z);
  with_element(precision_, [&](auto element) {
    using T = decltype(element);
    launch("add_identity", add_identity_kernel<T>, pass_grid(m.stride, size_t(z.items)), kPassThreads, 0, stream_,
           static_cast<T*>(out.storage), static_cast<const T*>(m.data), m.rows, m.pitch, m.stride, a);
  });
}

}  // namespace root_optimizer
