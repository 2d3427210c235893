// Matrices that are small enough have all iterations in one launch.

#include "newton_schulz.cuh"

#include <cstdlib>

#include "../native/newton_schulz.h"
#include "queue.h"

namespace root_optimizer::cuda {

namespace {

template <typename Element, typename T>
__global__ void __launch_bounds__(T::kThreads)
    newton_schulz_small(const __grid_constant__ StoredMatrices x, const Iteration* iterations, int count,
                        const Outcome outcome) {
  SmallIteration<Element, T>(x, outcome, blockIdx.x, dynamic_shared<Chunk<Element>>()).run(iterations, count);
}

/// What the launch of a batch takes.
struct SmallBatch {
  StoredMatrices x;
  int64_t count;
  const Iteration* iterations;
  int iteration_count;
  Outcome outcome;
};

template <typename Element, typename T>
void launch_as(const SmallBatch& batch, cudaStream_t stream) {
  const auto kernel = newton_schulz_small<Element, T>;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kSharedBytes),
          "cudaFuncSetAttribute");
  launch("newton_schulz", kernel, unsigned(batch.count), T::kThreads, T::kSharedBytes, stream, batch.x,
         batch.iterations, batch.iteration_count, batch.outcome);
}

template <typename Element, int kSide>
void launch_small(const SmallBatch& batch, cudaStream_t stream) {
  if (batch.x.rows < batch.x.columns) return launch_as<Element, SmallTile<kSide, true>>(batch, stream);
  launch_as<Element, SmallTile<kSide, false>>(batch, stream);
}

}  // namespace

// Up to here a block goes through five legs, of eight strips in each direction at most, in the time that the launches
// of fifteen products take. By count, not measured. The shape alone decides, so that a matrix has the same bits in
// every batch.
constexpr int64_t kMostWidth = 128;
constexpr int64_t kMostLength = 256;

static bool fits_shared_memory(int bytes) {
  int device;
  int most;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return bytes <= most;
}

static std::vector<Iteration> iterations_of(const ProductPlan& plan) {
  std::vector<Iteration> list;
  for (size_t leg = 0; leg < plan.legs.size(); ++leg) {
    for (int i = 0; i < plan.legs[leg]; ++i) {
      const Coefficients& k = plan.iterations[list.size()];
      list.push_back({.a = k.a,
                      .b = float(k.b),
                      .c = float(k.c),
                      .begins = i == 0,
                      .ends = i + 1 == plan.legs[leg],
                      .is_last = list.size() + 1 == plan.iterations.size(),
                      .x_has_two_parts = int(leg) < plan.split_legs,
                      .next_has_two_parts = int(leg) + 1 < plan.split_legs});
    }
  }
  return list;
}

bool CudaQueue::newton_schulz(const ProductPlan& plan, const Batch& batch, const Operand& x) {
  const char* const forced = std::getenv("ROOT_OPTIMIZER_GEMM");
  if (precision_ == Precision::float32 || x.short_side() > kMostWidth || x.long_side() > kMostLength ||
      (forced != nullptr && *forced != '\0')) {
    return false;
  }
  const bool narrow = x.short_side() <= kMostWidth / 2;
  if (!fits_shared_memory(narrow ? SmallTile<64, true>::kSharedBytes : SmallTile<128, true>::kSharedBytes)) {
    return false;
  }
  const std::vector<Iteration> list = iterations_of(plan);
  const SmallBatch small{.x = stored(x),
                         .count = x.count,
                         .iterations = tables_.put(list),
                         .iteration_count = int(list.size()),
                         .outcome = {batch.normalized ? nullptr : tables_.put(batch.matrices), gate_}};
  if (precision_ == Precision::float16) {
    (narrow ? launch_small<__half, 64> : launch_small<__half, 128>)(small, stream_);
  } else {
    (narrow ? launch_small<__nv_bfloat16, 64> : launch_small<__nv_bfloat16, 128>)(small, stream_);
  }
  if (batch.normalized) update({&batch, 1}, {&x, 1});
  return true;
}

}  // namespace root_optimizer::cuda
