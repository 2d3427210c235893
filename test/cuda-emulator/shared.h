#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

constexpr size_t kDefaultShared = 48 << 10;  ///< of a block, unless cudaFuncSetAttribute allows more
constexpr size_t kMaxShared = 227 << 10;

/// A block's shared memory: poisoned arrays between guard zones.
class SharedMemory {
 public:
  /// Makes the memory what a new block finds: dynamic memory, and no array yet.
  void reset(size_t dynamic_bytes);
  uint8_t* dynamic() const { return arrays_[0].base; }
  /// The array of this key, made if there is none yet; null if it does not fit.
  uint8_t* array(const void* key, const char* name, size_t bytes, size_t alignment);
  bool holds(const void* memory, size_t bytes) const;
  /// Which guard zone is damaged, in words; empty if none is.
  std::string inspect() const;

 private:
  struct Array {
    const void* key;
    const char* name;
    uint8_t* base;
    size_t bytes;
  };

  uint8_t* place(const void* key, const char* name, size_t bytes, size_t alignment);

  static constexpr size_t kAlignment = 1024;
  std::vector<uint8_t> arena_ = std::vector<uint8_t>(kMaxShared + (64 << 10));
  uint8_t* const begin_ = arena_.data() + (-reinterpret_cast<uintptr_t>(arena_.data()) & (kAlignment - 1));
  size_t used_ = 0;
  size_t static_bytes_ = 0;
  size_t dynamic_bytes_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace emulator
