#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulator {

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFreedLimit = 4 << 20;

// The canary begins with its low byte at even addresses, so that any part of a zone can be checked by itself.
struct Pattern {
  uint8_t bytes[kAlignment + 2];
  Pattern() {
    for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = uint8_t(kCanary >> i % 2 * 8);
  }
  const uint8_t* at(const void* memory) const { return bytes + reinterpret_cast<uintptr_t>(memory) % 2; }
};
const Pattern pattern;

std::string describe(const uint8_t* memory, size_t bytes, ptrdiff_t offset) {
  char text[160];
  snprintf(text, sizeof text, "a store %s the %zu bytes of global memory at %p, at byte %td",
           offset < 0 ? "before" : "past", bytes, static_cast<const void*>(memory), offset);
  return text;
}

std::string inspect_guards(const Allocation& allocation) {
  const auto& [base, bytes, padding, device, pool, regions, ends] = allocation;
  ptrdiff_t offset = damage(base - kGuardBytes, kGuardBytes);
  if (offset >= 0) return describe(base, bytes, offset - ptrdiff_t(kGuardBytes));
  offset = damage(base + bytes, padding);
  if (offset >= 0) return describe(base, bytes, ptrdiff_t(bytes) + offset);
  for (const auto& [region, size] : regions) {
    offset = damage(region + size, std::min(kGuardBytes, size_t(base + bytes - region) - size));
    if (offset >= 0) return describe(region, size, ptrdiff_t(size) + offset);
  }
  return "";
}

std::string inspect_poison(const Allocation& allocation) {
  const uint8_t* end = allocation.base + allocation.bytes;
  const uint8_t* changed =
      std::find_if(static_cast<const uint8_t*>(allocation.base), end, [](uint8_t byte) { return byte != kPoison; });
  if (changed == end) return "";
  char text[160];
  snprintf(text, sizeof text, "a store to freed memory: byte %td of %zu at %p", changed - allocation.base,
           allocation.bytes, static_cast<const void*>(allocation.base));
  return text;
}

}  // namespace

void write_canary(void* memory, size_t bytes) {
  uint8_t* begin = static_cast<uint8_t*>(memory);
  for (size_t done = 0; done < bytes; done += kAlignment) {
    memcpy(begin + done, pattern.at(begin), std::min(kAlignment, bytes - done));
  }
}

ptrdiff_t damage(const void* memory, size_t bytes) {
  const uint8_t* begin = static_cast<const uint8_t*>(memory);
  const uint8_t* expected = pattern.at(begin);
  for (size_t done = 0; done < bytes; done += kAlignment) {
    const size_t length = std::min(kAlignment, bytes - done);
    if (!memcmp(begin + done, expected, length)) continue;
    return ptrdiff_t(done) + (std::mismatch(expected, expected + length, begin + done).first - expected);
  }
  return -1;
}

Allocation* Memory::allocate(int device, CUmemPoolHandle_st* pool, size_t bytes) {
  const size_t padded = (bytes + kGuardBytes + kAlignment - 1) / kAlignment * kAlignment;
  uint8_t* raw = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kAlignment + padded));
  if (!raw) return nullptr;
  uint8_t* base = raw + kAlignment;
  write_canary(raw, kAlignment);
  memset(base, kPoison, bytes);
  write_canary(base + bytes, padded - bytes);
  return &(allocations_[base] = {base, bytes, padded - bytes, device, pool, {}});
}

std::string Memory::release(Allocation* allocation) {
  std::string message = inspect_guards(*allocation);
  if (recent_ == allocation) recent_ = nullptr;
  memset(allocation->base, kPoison, allocation->bytes);
  freed_.push_back(allocations_.extract(allocation->base).mapped());
  freed_bytes_ += freed_.back().bytes;
  while (freed_bytes_ > kFreedLimit) {
    if (message.empty()) message = inspect_poison(freed_.front());
    freed_bytes_ -= freed_.front().bytes;
    std::free(freed_.front().base - kAlignment);
    freed_.pop_front();
  }
  return message;
}

Allocation* Memory::find(const void* memory, size_t bytes) {
  const uint8_t* begin = static_cast<const uint8_t*>(memory);
  const auto holds = [=](const Allocation& allocation) {
    return begin >= allocation.base && begin + bytes <= allocation.base + allocation.bytes;
  };
  if (recent_ && holds(*recent_)) return recent_;
  auto next = allocations_.upper_bound(begin);
  if (next == allocations_.begin()) return nullptr;
  Allocation& candidate = std::prev(next)->second;
  if (!holds(candidate)) return nullptr;
  recent_ = &candidate;
  return recent_;
}

bool Memory::is_readable(const void* memory, size_t bytes) {
  const Allocation* allocation = find(memory, bytes);
  if (!allocation || allocation->device == kHost) return false;
  if (allocation->regions.empty()) return true;
  uint8_t* begin = const_cast<uint8_t*>(static_cast<const uint8_t*>(memory));
  const auto next = allocation->regions.upper_bound(begin);
  if (next == allocation->regions.begin()) return false;
  const auto& [base, size] = *std::prev(next);
  return begin + bytes <= base + size;
}

void Memory::poison(Allocation& allocation, uint8_t* memory, size_t bytes) {
  auto& regions = allocation.regions;
  auto region = regions.lower_bound(memory);
  while (region != regions.begin() && std::prev(region)->first + std::prev(region)->second > memory) --region;
  while (region != regions.end() && region->first < memory + bytes + kGuardBytes) region = regions.erase(region);
  regions[memory] = bytes;
  memset(memory, kPoison, bytes);
  const size_t room = size_t(allocation.base + allocation.bytes - memory) - bytes;
  write_canary(memory + bytes, std::min(room, kGuardBytes));
}

std::string Memory::inspect(int device) const {
  for (const auto& [base, allocation] : allocations_) {
    if (allocation.device != device) continue;
    std::string message = inspect_guards(allocation);
    if (!message.empty()) return message;
  }
  return "";
}

std::string Memory::inspect_freed(int device) const {
  for (const Allocation& allocation : freed_) {
    if (allocation.device != device) continue;
    std::string message = inspect_poison(allocation);
    if (!message.empty()) return message;
  }
  return "";
}

void Memory::clear() {
  for (const auto& [base, allocation] : allocations_) std::free(allocation.base - kAlignment);
  for (const Allocation& allocation : freed_) std::free(allocation.base - kAlignment);
  allocations_.clear();
  freed_.clear();
  freed_bytes_ = 0;
  recent_ = nullptr;
}

}  // namespace emulator
