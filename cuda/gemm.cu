// out ← α·product + β·c over a batch: on tensor cores where the elements have 16 bits.

#include "gemm.cuh"

#include <stdexcept>

#include "gemm_float32.cuh"
#include "gemm_tensor.cuh"

namespace root_optimizer {

namespace {

template <Product kProduct, bool kSymmetric>
void launch_gemm_as(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  switch (precision) {
    case Precision::float16: return launch_gemm_tensor<__half, kProduct, kSymmetric>(gemm, stream);
    case Precision::bfloat16: return launch_gemm_tensor<__nv_bfloat16, kProduct, kSymmetric>(gemm, stream);
    case Precision::float32: return launch_gemm_float32<kProduct, kSymmetric>(gemm, stream);
  }
}

}  // namespace

void launch_gemm(Precision precision, const Gemm& gemm, cudaStream_t stream) {
  if (gemm.symmetric) {
    switch (gemm.product) {
      case Product::rows_by_rows: return launch_gemm_as<Product::rows_by_rows, true>(precision, gemm, stream);
      case Product::columns_by_columns:
        return launch_gemm_as<Product::columns_by_columns, true>(precision, gemm, stream);
      case Product::plain: break;
    }
  } else {
    switch (gemm.product) {
      case Product::rows_by_rows: return launch_gemm_as<Product::rows_by_rows, false>(precision, gemm, stream);
      case Product::plain: return launch_gemm_as<Product::plain, false>(precision, gemm, stream);
      case Product::columns_by_columns: break;
    }
  }
  throw std::logic_error("There is no such product");
}

}  // namespace root_optimizer
