#include "tensor_map.h"

#include "../native/error.h"
#include "driver_function.h"

namespace root_optimizer::cuda {

TensorMap tensor_map(const StoredMatrices& m, int64_t count) {
  const auto encode = driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encode == nullptr) throw Error("ERR_CUDA", "the driver lacks cuTensorMapEncodeTiled");
  const cuuint64_t sizes[] = {cuuint64_t(m.columns), cuuint64_t(m.rows), cuuint64_t(count)};
  const cuuint64_t strides[] = {cuuint64_t(m.pitch) * 2, cuuint64_t(m.stride) * 2};  // in bytes
  const cuuint32_t box[] = {64, 64, 1};
  const cuuint32_t steps[] = {1, 1, 1};
  TensorMap map;
  // Both 16-bit types are copied alike.
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 3, m.data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error("ERR_CUDA", "cuTensorMapEncodeTiled failed: " + std::to_string(int(status)));
  }
  return map;
}

}  // namespace root_optimizer::cuda
