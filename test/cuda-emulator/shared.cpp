#include "shared.h"

#include <algorithm>
#include <cstring>

#include "memory.h"

namespace emulator {

void SharedMemory::reset(size_t dynamic_bytes) {
  arrays_.clear();
  used_ = static_bytes_ = 0;
  dynamic_bytes_ = dynamic_bytes;
  place(nullptr, "dynamic shared memory", dynamic_bytes, kAlignment);
}

uint8_t* SharedMemory::array(const void* key, const char* name, size_t bytes, size_t alignment) {
  for (const Array& array : arrays_) {
    if (array.key == key) return array.base;
  }
  static_bytes_ += bytes;
  if (static_bytes_ > kDefaultShared || static_bytes_ + dynamic_bytes_ > kMaxShared) return nullptr;
  return place(key, name, bytes, std::max<size_t>(alignment, 16));
}

uint8_t* SharedMemory::place(const void* key, const char* name, size_t bytes, size_t alignment) {
  const size_t offset = (used_ + kGuardBytes + alignment - 1) & ~(alignment - 1);
  const size_t end = offset + bytes + kGuardBytes;
  if (begin_ + end > arena_.data() + arena_.size()) return nullptr;
  write_canary(begin_ + used_, offset - used_);
  memset(begin_ + offset, kPoison, bytes);
  write_canary(begin_ + offset + bytes, kGuardBytes);
  used_ = end;
  arrays_.push_back({key, name, begin_ + offset, bytes});
  return begin_ + offset;
}

bool SharedMemory::holds(const void* memory, size_t bytes) const {
  const uint8_t* begin = static_cast<const uint8_t*>(memory);
  return std::any_of(arrays_.begin(), arrays_.end(), [=](const Array& array) {
    return begin >= array.base && begin + bytes <= array.base + array.bytes;
  });
}

std::string SharedMemory::inspect() const {
  for (const Array& array : arrays_) {
    const ptrdiff_t before = damage(array.base - kGuardBytes, kGuardBytes);
    const ptrdiff_t after = damage(array.base + array.bytes, kGuardBytes);
    if (before < 0 && after < 0) continue;
    const ptrdiff_t offset = after < 0 ? before - ptrdiff_t(kGuardBytes) : ptrdiff_t(array.bytes) + after;
    return std::string("a store ") + (after < 0 ? "before" : "past") + " the " + std::to_string(array.bytes) +
           " bytes of " + array.name + " in shared memory, at byte " + std::to_string(offset);
  }
  return "";
}

}  // namespace emulator
