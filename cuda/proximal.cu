// M ← μM + G and X ← B / (‖B‖_F + 1e-7), B = clamp(U, −ε, ε), in one pass and in the precision of the products. The
// check has noted ε and ‖B‖. X lies as the batch does, rows padded with zeros.

#include "batch.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

template <typename T>
__global__ void __launch_bounds__(kPassThreads, 4)
    proximal_kernel(const PassMatrix* matrices, const Share* shares, const CheckNote* notes, const uint32_t* gate) {
  constexpr int kSize = Chunk<T>::kSize;
  const Share share = shares[blockIdx.x];
  const PassMatrix& p = matrices[share.entry];
  const Matrix& matrix = p.matrix;
  const CheckNote& note = notes[matrix.index];
  const bool open = *gate == 0;
  if (open && share.index == 0 && threadIdx.x == 0) {
    if (p.clips) matrix.thresholds->threshold = note.threshold;
    if (p.clips_gradient) remember(*matrix.thresholds, note);
  }
  const bool stores = open && matrix.gradient != nullptr;
  const int64_t columns = p.columns;
  LookAhead u(p, notes);
  u.whole_words = u.whole_words && columns % 4 == 0;
  const float limit = clip_limit(note.threshold);
  const double factor = note.factor;
  T* const x = static_cast<T*>(p.x.data);
  T* const low = static_cast<T*>(p.x.low);
  const int64_t chunks_of_a_row = p.x.pitch / kSize;
  const int64_t chunks = p.rows * chunks_of_a_row;
  const int64_t threads = int64_t(share.count) * blockDim.x;
  for (int64_t i = int64_t(share.index) * blockDim.x + threadIdx.x; i < chunks; i += threads) {
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
    store_chunk(x + i * kSize, chunk);
    if (low != nullptr) store_chunk(low + i * kSize, second);
  }
}

void CudaQueue::proximal(std::span<const Batch> batches, std::span<Operand> x) {
  std::vector<PassMatrix> list;
  std::vector<unsigned> blocks;
  for (size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = batches[i];
    x[i] = operand(batch.rows, batch.columns, batch.count(), precision_, x[i].two_parts);
    for (const Matrix& matrix : batch.matrices) {
      PassMatrix p = pass_matrix(batch, matrix);
      p.x = stored(x[i], &matrix - batch.matrices.data());
      list.push_back(p);
      blocks.push_back(pass_blocks(p.x.stride));
    }
  }
  const std::vector<Share> shares = shares_of(blocks);
  const PassMatrix* const matrices = tables_.put(list);
  const Share* const table = tables_.put(shares);
  with_element(precision_, [&](auto element) {
    launch("proximal", proximal_kernel<decltype(element)>, unsigned(shares.size()), kPassThreads, 0, stream_, matrices,
           table, notes_, gate_);
  });
}

}  // namespace root_optimizer::cuda
