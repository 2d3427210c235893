#pragma once

// Small programs that each do something right and, if `broken`, almost right.

#include <emulated_device.h>

#include <vector>

struct Case {
  const char* name;
  bool can_break;
  bool (*is_right)(bool broken);  ///< whether the program came to the right result; throws what the runtime reports
};

extern const std::vector<Case> block_cases, memory_cases, copy_cases, hopper_cases, stream_cases, arithmetic_cases,
    runtime_cases;

/// Device memory with `size` elements. It lasts until the emulator is reset.
template <typename T>
T* device_array(size_t size) {
  T* memory;
  root_optimizer::cuda::require(cudaMalloc(&memory, size * sizeof(T)), "cudaMalloc");
  return memory;
}

template <typename T>
T* device_copy(const std::vector<T>& values) {
  T* memory = device_array<T>(values.size());
  root_optimizer::cuda::require(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
                                "cudaMemcpy");
  return memory;
}

template <typename T>
std::vector<T> host_copy(const T* memory, size_t size) {
  std::vector<T> values(size);
  root_optimizer::cuda::require(cudaMemcpy(values.data(), memory, size * sizeof(T), cudaMemcpyDeviceToHost),
                                "cudaMemcpy");
  return values;
}

/// first, first + 1, …
template <typename T>
std::vector<T> sequence(size_t size, int first = 0) {
  std::vector<T> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = T(first + int(i));
  return values;
}
