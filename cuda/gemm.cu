// Products over a batch. Elements of 16 bits are multiplied on tensor cores.

#include "gemm.cuh"

#include <stdexcept>

#include "gemm_float32.cuh"
#include "gemm_tensor.cuh"
#include "queue.h"

namespace root_optimizer::cuda {

template <Contraction kContraction, bool kSymmetric>
static void launch_gemm_as(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  switch (precision) {
    case Precision::float16: return launch_gemm_tensor<__half, kContraction, kSymmetric>(gemm, stream);
    case Precision::bfloat16: return launch_gemm_tensor<__nv_bfloat16, kContraction, kSymmetric>(gemm, stream);
    case Precision::float32: return launch_gemm_float32<kContraction, kSymmetric>(gemm, stream);
  }
}

void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  constexpr Contraction kRows = Contraction::rows_by_rows;
  constexpr Contraction kColumns = Contraction::columns_by_columns;
  constexpr Contraction kPlain = Contraction::plain;
  if (gemm.symmetric) {
    if (gemm.contraction == kRows) return launch_gemm_as<kRows, true>(precision, gemm, stream);
    if (gemm.contraction == kColumns) return launch_gemm_as<kColumns, true>(precision, gemm, stream);
  } else {
    if (gemm.contraction == kRows) return launch_gemm_as<kRows, false>(precision, gemm, stream);
    if (gemm.contraction == kPlain) return launch_gemm_as<kPlain, false>(precision, gemm, stream);
  }
  throw std::logic_error("There is no such product");
}

void CudaQueue::gemm_symmetric(const Product& p) {
  launch_gemm(precision_,
              {.contraction = p.a.is_wide() ? Contraction::rows_by_rows : Contraction::columns_by_columns,
               .symmetric = true,
               .alpha = p.alpha,
               .beta = p.beta,
               .out = stored(p.out),
               .a = stored(p.a),
               .b = stored(p.b),
               .c = stored(p.c),
               .count = p.out.count},
              stream_);
}

// b is symmetric, so its rows serve as its columns if a is tall.
void CudaQueue::gemm(const Product& p) {
  launch_gemm(precision_,
              {.contraction = p.a.is_wide() ? Contraction::plain : Contraction::rows_by_rows,
               .symmetric = false,
               .alpha = p.alpha,
               .beta = p.beta,
               .out = stored(p.out),
               .a = stored(p.a.is_wide() ? p.b : p.a),
               .b = stored(p.a.is_wide() ? p.a : p.b),
               .c = stored(p.c),
               .count = p.out.count},
              stream_);
  if (p.update != nullptr) update({p.update, 1}, {&p.out, 1});
}

}  // namespace root_optimizer::cuda
