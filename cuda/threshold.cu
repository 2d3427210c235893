// ε ← scale · quantile of |U|, and ε_G ← scale · quantile of |G|, and ‖B‖_F with it, from what selection.cu finds.

#include "selection.cuh"

namespace root_optimizer::cuda {

// A thread a matrix.
__global__ void write_thresholds(const PassMatrix* matrices, unsigned count, const Workspace work,
                                 const uint32_t* gate) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (*gate != 0 || i >= count) return;
  const Matrix& matrix = matrices[i].matrix;
  matrix.thresholds->threshold =
      matrix.scalars->scale * quantile_of(work.selections[i], matrices[i].size(), matrix.scalars->quantile);
}

// A gradient whose quantile has been found.
struct FoundGradient {
  const GradientScalars* scalars;
  const Thresholds* thresholds;
  int64_t size;
  CheckNote* note;
};

// A thread a gradient.
__global__ void note_gradient_clips(const FoundGradient* gradients, unsigned count, const Workspace work) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const FoundGradient& found = gradients[i];
  const GradientScalars& scalars = *found.scalars;
  const double threshold = scalars.scale * quantile_of(work.selections[i], found.size, scalars.quantile);
  const double mean = found.thresholds->gradient_scale;
  found.note->gradient = gradient_clip(threshold, mean, scalars.growth);
  found.note->next_scale = next_gradient_scale(mean, threshold, scalars.growth);
}

/// The sum of the sums of some blocks. The whole block adds them, in a fixed order; the result is thread 0's.
__device__ double sum_of(const double* sums, const BlockRange& blocks) {
  double sum = 0;
  for (unsigned i = threadIdx.x; i < blocks.count; i += kPassThreads) sum += sums[blocks.first + i];
  __syncthreads();
  return block_sum(sum);
}

__device__ double factor_of(double squares) { return 1 / (sqrt(squares) + 1e-7); }

// Notes ε and, where the passes have found it, ‖B‖. One block a matrix.
__global__ void note_clips(const PassMatrix* matrices, const Search* searches, const Workspace work, CheckNote* notes) {
  const Matrix& matrix = matrices[blockIdx.x].matrix;
  const Search& search = searches[blockIdx.x];
  const Selection& selection = work.selections[blockIdx.x];
  const bool clips = matrices[blockIdx.x].clips;
  const int64_t size = search.size;
  const bool near_last = clips && selection.near_last;
  const double below = sum_of(work.below, search.scan);
  const double searched = clips && !near_last ? sum_of(work.squares, search.passes) : 0;
  if (threadIdx.x != 0) return;
  CheckNote& note = notes[matrix.index];
  note.threshold = 0;
  if (!clips) {
    note.factor = factor_of(below);
    return;
  }
  note.threshold = matrix.scalars->scale * quantile_of(selection, size, matrix.scalars->quantile);
  const double limit = clip_limit(note.threshold);
  // Keys above the lower statistic are clipped if ε lies between the two statistics.
  if (matrix.scalars->scale != 1 || isinf(limit)) {
    note.factor = -1;
    return;
  }
  const double unit = near_last ? unit_of(keys_near(matrix.thresholds->threshold / matrix.scalars->scale).floor) : 0;
  const double kept =
      near_last ? below + (double(selection.squares_high) * 4294967296.0 + double(selection.squares_low)) * unit * unit
                : searched;
  const auto up_to = int64_t(selection.up_to + (near_last ? selection.below : 0));
  note.factor = factor_of(kept + double(size - up_to) * limit * limit);
}

// The squares of B where ε is not a quantile.
__global__ void sum_squares(const PassMatrix* matrices, const Share* shares, const CheckNote* notes, double* sums) {
  const Share share = shares[blockIdx.x];
  const PassMatrix& p = matrices[share.entry];
  const CheckNote& note = notes[p.matrix.index];
  if (note.factor >= 0) return;
  const LookAhead u(p, notes);
  const float limit = clip_limit(note.threshold);
  double sum = 0;
  for_each_quad(p.size(), share, [&](int64_t i, int count) {
    const Quad x = u.quad(i, count);
    for (int e = 0; e < 4; ++e) {
      const double kept = clamp(x.v[e], limit);
      sum += kept * kept;
    }
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block a matrix.
__global__ void note_norms(const PassMatrix* matrices, const Search* searches, const double* sums, CheckNote* notes) {
  CheckNote& note = notes[matrices[blockIdx.x].matrix.index];
  if (note.factor >= 0) return;
  const double sum = sum_of(sums, searches[blockIdx.x].passes);
  if (threadIdx.x == 0) note.factor = factor_of(sum);
}

static std::vector<Search> searches_of(const std::vector<PassMatrix>& matrices, const CheckNote* notes,
                                       bool near_last) {
  std::vector<Search> searches;
  for (const PassMatrix& p : matrices) {
    const Matrix& m = p.matrix;
    searches.push_back({.momentum = m.momentum,
                        .gradient = m.gradient,
                        .mu = m.gradient == nullptr ? nullptr : &m.scalars->mu,
                        .nesterov = p.nesterov,
                        .note = p.clips_gradient ? notes + m.index : nullptr,
                        .quantile = p.clips ? &m.scalars->quantile : nullptr,
                        .scale = p.clips ? &m.scalars->scale : nullptr,
                        .last = p.clips && near_last ? &m.thresholds->threshold : nullptr,
                        .flag = m.flag,
                        .size = p.size()});
  }
  return searches;
}

void CudaQueue::find_clips(std::span<const Batch> batches) {
  const size_t mark = arena_.mark();
  const std::vector<PassMatrix> list = pass_matrices(batches);
  const Selected selected = select(searches_of(list, notes_, true));
  const PassMatrix* const matrices = tables_.put(list);
  const unsigned count = unsigned(list.size());
  launch("note_clips", note_clips, count, kPassThreads, 0, stream_, matrices, selected.searches, selected.work, notes_);
  if (selected.blocks > 0) {
    launch("sum_squares", sum_squares, selected.blocks, kPassThreads, 0, stream_, matrices, selected.shares, notes_,
           selected.work.squares);
    launch("note_norms", note_norms, count, kPassThreads, 0, stream_, matrices, selected.searches,
           selected.work.squares, notes_);
  }
  arena_.rewind(mark);
}

constexpr unsigned kNoteThreads = 32;
static unsigned note_blocks(unsigned count) { return (count + kNoteThreads - 1) / kNoteThreads; }

void CudaQueue::threshold(std::span<const Batch> batches) {
  const size_t mark = arena_.mark();
  const std::vector<PassMatrix> list = pass_matrices(batches);
  const Selected selected = select(searches_of(list, notes_, false));
  const unsigned count = unsigned(list.size());
  launch("write_thresholds", write_thresholds, note_blocks(count), kNoteThreads, 0, stream_, tables_.put(list), count,
         selected.work, gate_);
  arena_.rewind(mark);
}

// A gradient is searched as an M that stays as it is.
template <typename T>
static Search search_of_gradient(const T& entry, int64_t size) {
  return {.momentum = entry.gradient,
          .gradient = nullptr,
          .mu = nullptr,
          .nesterov = false,
          .note = nullptr,
          .quantile = &entry.scalars->gradient.quantile,
          .scale = &entry.scalars->gradient.scale,
          .last = &entry.thresholds->gradient_threshold,
          .flag = entry.flag,
          .size = size};
}

template <typename T>
static FoundGradient found_gradient(const T& entry, int64_t size, CheckNote* notes) {
  return {
      .scalars = &entry.scalars->gradient, .thresholds = entry.thresholds, .size = size, .note = notes + entry.index};
}

void CudaQueue::find_gradient_clips(std::span<const Batch> batches, std::span<const Moments> moments) {
  std::vector<Search> searches;
  std::vector<FoundGradient> gradients;
  const auto add = [&](const auto& entry, int64_t size) {
    searches.push_back(search_of_gradient(entry, size));
    gradients.push_back(found_gradient(entry, size, notes_));
  };
  for (const Batch& batch : batches) {
    if (!batch.clips_gradient) continue;
    for (const Matrix& matrix : batch.matrices) add(matrix, batch.size());
  }
  for (const Moments& one : moments) {
    if (one.thresholds != nullptr) add(one, one.size);
  }
  if (searches.empty()) return;
  const size_t mark = arena_.mark();
  const Selected selected = select(std::move(searches));
  const unsigned count = unsigned(gradients.size());
  launch("note_gradient_clips", note_gradient_clips, note_blocks(count), kNoteThreads, 0, stream_,
         tables_.put(gradients), count, selected.work);
  arena_.rewind(mark);
}

}  // namespace root_optimizer::cuda
