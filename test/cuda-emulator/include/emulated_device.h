#pragma once

// The emulator's side of cuda/launch.cuh: launches, shared arrays and the wrappers of PTX instructions.

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <functional>
#include <tuple>
#include <utility>

namespace emulator {

struct Launch {
  const char* name;
  const void* kernel;
  dim3 grid, block;
  size_t shared;
  std::function<void()> thread;  ///< what every thread runs
};

cudaError_t launch(Launch launch, cudaStream_t stream);

/// Poisons the region, in the order of the stream. A store into the 128 bytes behind it is then a fault.
cudaError_t poison(void* memory, size_t bytes, cudaStream_t stream);

/// Forgets devices, queues and errors as if the process had just started. `seed` 0 means that of the environment.
void reset(uint64_t seed = 0);
/// The message of the last fault.
const char* last_fault();

template <typename T, size_t count>
using Array = T[count];

void copy_async(void* shared, const void* global, bool valid);
void commit_copies();
void wait_copies(int pending);
void load_matrix(uint32_t (&r)[4], const void* row, bool transposed, Site site);
void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bool bfloat16, Site site);

void named_barrier(int number, int threads);
void init_barrier(uint64_t* barrier, int count);
void arrive_at_barrier(uint64_t* barrier, int bytes);
void wait_barrier(uint64_t* barrier, int parity);
void copy_box(void* to, const CUtensorMap& map, int column, int row, int matrix, uint64_t* barrier);
uint64_t describe_swizzled(const void* shared, int leading_bytes, int stride_bytes);
void multiply_warpgroup(float* sums, uint64_t a, uint64_t b, bool transposes_a, bool transposes_b, bool bfloat16);
void commit_products();
void wait_products(int pending);

}  // namespace emulator

namespace root_optimizer::cuda {

#define ROOT_OPTIMIZER_HAS_WGMMA

void require(cudaError_t status, const char* call);

template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "as many arguments as the kernel has parameters");
  const std::tuple<std::decay_t<P>...> values(std::forward<A>(args)...);
  auto thread = [kernel, values] { std::apply(kernel, values); };
  require(emulator::launch({name, reinterpret_cast<const void*>(kernel), grid, block, shared, thread}, stream), name);
}

inline void poison(void* memory, size_t bytes, cudaStream_t stream) {
  require(emulator::poison(memory, bytes, stream), "poison");
}

// A static variable in the kernel tells the arrays of different kernels and of their instances apart.
#define SHARED_ARRAY(T, name, count)                                              \
  static const char name##_key = 0;                                               \
  emulator::Array<T, (count)>& name = *static_cast<emulator::Array<T, (count)>*>( \
      emulator::shared_array(&name##_key, #name, sizeof(emulator::Array<T, (count)>), alignof(T)))

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(emulator::dynamic_shared());
}

inline void prefetch_line(const void*) {}
inline void copy_async_16(void* shared, const void* global, bool valid) { emulator::copy_async(shared, global, valid); }
inline void commit_copies() { emulator::commit_copies(); }
template <int kPending>
void wait_copies() {
  emulator::wait_copies(kPending);
}

inline void load_matrix_x4(uint32_t (&r)[4], const void* row, EMULATOR_SITE) {
  emulator::load_matrix(r, row, false, site);
}
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row, EMULATOR_SITE) {
  emulator::load_matrix(r, row, true, site);
}

inline void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], __half, EMULATOR_SITE) {
  emulator::multiply_accumulate(d, a, b, false, site);
}
inline void multiply_accumulate(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], __nv_bfloat16,
                                EMULATOR_SITE) {
  emulator::multiply_accumulate(d, a, b, true, site);
}

template <int kThreads>
void named_barrier(int number) {
  emulator::named_barrier(number, kThreads);
}
inline void init_barrier(uint64_t* barrier, int count) { emulator::init_barrier(barrier, count); }
inline void publish_barriers() {}
inline void arrive_at_barrier(uint64_t* barrier) { emulator::arrive_at_barrier(barrier, 0); }
inline void expect_bytes(uint64_t* barrier, int bytes) { emulator::arrive_at_barrier(barrier, bytes); }
inline void wait_barrier(uint64_t* barrier, int parity) { emulator::wait_barrier(barrier, parity); }
inline void copy_box(void* shared, const CUtensorMap& map, int column, int row, int matrix, uint64_t* barrier) {
  emulator::copy_box(shared, map, column, row, matrix, barrier);
}
inline uint64_t describe_swizzled(const void* shared, int leading_bytes, int stride_bytes) {
  return emulator::describe_swizzled(shared, leading_bytes, stride_bytes);
}
template <bool kTransposeA, bool kTransposeB>
void multiply_warpgroup(float (&d)[64], uint64_t a, uint64_t b, __half) {
  emulator::multiply_warpgroup(d, a, b, kTransposeA, kTransposeB, false);
}
template <bool kTransposeA, bool kTransposeB>
void multiply_warpgroup(float (&d)[64], uint64_t a, uint64_t b, __nv_bfloat16) {
  emulator::multiply_warpgroup(d, a, b, kTransposeA, kTransposeB, true);
}
inline void begin_products() {}
inline void commit_products() { emulator::commit_products(); }
template <int kPending>
void wait_products() {
  emulator::wait_products(kPending);
}
inline void settle_sums(float (&)[64]) {}

}  // namespace root_optimizer::cuda
