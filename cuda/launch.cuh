#pragma once

// What kernels need beyond the CUDA language. The tests compile the same kernels for the host, where
// test/cuda-emulator/include/emulated_device.h offers the same.

#ifndef __CUDACC__

#include <emulated_device.h>

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "status.h"

namespace root_optimizer::cuda {

/// Launches a kernel; `name` is for errors.
template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            A&&... args) {
  [&](P... parameters) {
    void* addresses[] = {static_cast<void*>(&parameters)...};
    require(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, addresses, shared, stream), name);
  }(static_cast<P>(args)...);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define ROOT_OPTIMIZER_HAS_WGMMA
#endif

/// An array that the threads of a block share, uninitialised.
#define SHARED_ARRAY(T, name, count) __shared__ T name[count]

/// The shared memory whose size the launch gives.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

/// Tells a checker that this part of an allocation is uninitialised and that nobody owns the 128 bytes behind it.
inline void poison(void*, size_t, cudaStream_t) {}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Fetches a line of 128 bytes into the L2 cache.
__device__ __forceinline__ void prefetch_line(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

/// Begins a copy of 16 aligned bytes from global to shared memory. Writes zeros and reads nothing unless `valid`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

/// Ends a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most kPending of this thread's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Loads four 8 × 8 matrices of 16-bit elements, one a register: lane i gives the address of row i % 8 of matrix i / 8
/// and receives elements (i / 4, 2 · (i % 4)) and the one beside it.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Does the same, and transposes each matrix.
__device__ __forceinline__ void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// d += a · b for a of 16 × 16, b of 16 × 8 and d of 16 × 8 elements, in a warp's registers as PTX lays them out for
/// mma.m16n8k16. The last argument tells the type of a's and b's elements.
__device__ __forceinline__ void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                    __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                    __nv_bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Waits until kThreads threads of the block have come to a barrier, number 1 or 2. The numbers are written out,
/// because a block that computes them would occupy all sixteen barriers.
template <int kThreads>
__device__ __forceinline__ void named_barrier(int number) {
  if (number == 1) {
    asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
  } else {
    asm volatile("bar.sync 2, %0;" ::"n"(kThreads) : "memory");
  }
}

// Barriers in shared memory. One completes a phase when as many threads have arrived as it counts and all bytes that
// they expect have been copied. Phases have parity 0 and 1 in turn.

__device__ __forceinline__ void init_barrier(uint64_t* barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}

/// Shows initialised barriers to the copy engine. The block has to meet afterwards.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void arrive_at_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

/// Arrives, and expects bytes to be copied.
__device__ __forceinline__ void expect_bytes(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

/// Waits for the end of a phase, of which only the parity counts: it must be the current phase or the one before.
__device__ __forceinline__ void wait_barrier(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ended;\n"
      "bra again;\n"
      "ended:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Asks the copy engine for a box of a tensor map, which begins at this column and row of a matrix. Its bytes count for
/// the barrier. The box has to begin at a multiple of 1024 bytes.
template <typename Map>
__device__ __forceinline__ void copy_box(void* shared, const Map& map, int column, int row, int matrix,
                                         uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::
          "r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(matrix)
      : "memory");
}

/// A descriptor of a matrix in shared memory that is swizzled by 128 bytes, as wgmma takes it.
__device__ __forceinline__ uint64_t describe_swizzled(const void* shared, int leading_bytes, int stride_bytes) {
  return uint64_t(1) << 62 | uint64_t(stride_bytes >> 4) << 32 | uint64_t(leading_bytes >> 4) << 16 |
         (shared_address(shared) & 0x3ffff) >> 4;
}

/// wgmma of one type of elements.
// clang-format off
#define ROOT_OPTIMIZER_WGMMA(type) \
  asm volatile(                                                                                                       \
      "{ .reg .pred adds; setp.eq.u32 adds, 1, 1; "                                                                   \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " "                                                \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                       \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                              \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                              \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                             \
      "%64, %65, adds, 1, 1, %66, %67; }"                                                                             \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),   \
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),        \
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),       \
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]),       \
        "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]),       \
        "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),       \
        "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),       \
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])                     \
      : "l"(a), "l"(b), "n"(kTransposeA), "n"(kTransposeB))
// clang-format on

/// d += a · b for a of 64 × 16, b of 16 × 128 and d of 64 × 128 elements, by a warpgroup. a and b are descriptors. An
/// operand whose depth goes down is transposed. The last argument tells the type of a's and b's elements.
template <bool kTransposeA, bool kTransposeB>
__device__ __forceinline__ void multiply_warpgroup(float (&d)[64], uint64_t a, uint64_t b, __half) {
  ROOT_OPTIMIZER_WGMMA("f16");
}
template <bool kTransposeA, bool kTransposeB>
__device__ __forceinline__ void multiply_warpgroup(float (&d)[64], uint64_t a, uint64_t b, __nv_bfloat16) {
  ROOT_OPTIMIZER_WGMMA("bf16");
}
#undef ROOT_OPTIMIZER_WGMMA

/// Comes before the first of several products whose sums were touched.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Ends a group of products.
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most kPending of the latest groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from reading sums before a wait.
__device__ __forceinline__ void settle_sums(float (&d)[64]) {
  for (float& sum : d) asm volatile("" : "+f"(sum)::"memory");
}

}  // namespace root_optimizer::cuda

#endif
