#pragma once

// What the threads of a block do together: barriers, warp collectives, shared arrays, atomics.

#include <type_traits>

#include "emulated_language.h"

namespace emulator {

/// Where in the kernel a thread waits. Threads must meet at the same place.
struct Site {
  const char* file;
  int line;
};
#define EMULATOR_SITE emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

/// What the lanes of a warp do once the last of them has come. `run` reads and fills in all operands of `mask`'s lanes.
struct Collective {
  const char* name;
  void (*run)(void* const* operands, unsigned mask);
};

constexpr unsigned kFullMask = 0xffffffff;

enum class Vote { none, any, count };

int barrier(Vote vote, int predicate, Site site);
void collective(unsigned mask, const Collective& operation, void* operand, Site site);
int lane();
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// The block's array of this key. It is made and poisoned when the block first meets it.
void* shared_array(const void* key, const char* name, size_t bytes, size_t alignment);
void* dynamic_shared();

template <typename T>
struct Shuffle {
  T value;
  int source;
  T result;

  static void run(void* const* operands, unsigned mask) {
    for (int lane = 0; lane < warpSize; ++lane) {
      if (!(mask >> lane & 1)) continue;
      Shuffle& mine = *static_cast<Shuffle*>(operands[lane]);
      if (!(mask >> mine.source & 1)) fault("lane %d shuffles from lane %d, which takes no part", lane, mine.source);
      mine.result = static_cast<Shuffle*>(operands[mine.source])->value;
    }
  }
};

template <typename T>
T shuffle(const char* name, unsigned mask, T value, int source, int width, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if (width != warpSize) fault("%s: only width 32 is emulated", name);
  Shuffle<T> operand{value, source, value};
  collective(mask, {name, Shuffle<T>::run}, &operand, site);
  return operand.result;
}

struct Ballot {
  unsigned long long value;
  bool by_value;
  unsigned result;

  static void run(void* const* operands, unsigned mask);
};

inline unsigned ballot(const char* name, unsigned mask, unsigned long long value, bool by_value, Site site) {
  Ballot operand{value, by_value, 0};
  collective(mask, {name, Ballot::run}, &operand, site);
  return operand.result;
}

/// Stores what `combine` makes of the old value; returns the old one. One thread runs at a time.
template <typename T, typename F>
T atomic(T* address, F combine) {
  const T old = *address;
  *address = combine(old);
  return old;
}

}  // namespace emulator

inline void __syncthreads(EMULATOR_SITE) { emulator::barrier(emulator::Vote::none, 0, site); }
inline int __syncthreads_or(int predicate, EMULATOR_SITE) {
  return emulator::barrier(emulator::Vote::any, predicate, site);
}
inline int __syncthreads_and(int predicate, EMULATOR_SITE) {
  return !emulator::barrier(emulator::Vote::any, !predicate, site);
}
inline int __syncthreads_count(int predicate, EMULATOR_SITE) {
  return emulator::barrier(emulator::Vote::count, predicate, site);
}
inline void __syncwarp(unsigned mask = emulator::kFullMask, EMULATOR_SITE) {
  emulator::collective(mask, {"__syncwarp", nullptr}, nullptr, site);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, EMULATOR_SITE) {
  return emulator::shuffle("__shfl_sync", mask, value, source & 31, width, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, EMULATOR_SITE) {
  return emulator::shuffle("__shfl_xor_sync", mask, value, (emulator::lane() ^ lanes) & 31, width, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, EMULATOR_SITE) {
  const int own = emulator::lane();
  const int source = delta < unsigned(warpSize - own) ? own + int(delta) : own;
  return emulator::shuffle("__shfl_down_sync", mask, value, source, width, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, EMULATOR_SITE) {
  const int own = emulator::lane();
  const int source = delta <= unsigned(own) ? own - int(delta) : own;
  return emulator::shuffle("__shfl_up_sync", mask, value, source, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot("__ballot_sync", mask, predicate != 0, false, site);
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot("__any_sync", mask, predicate != 0, false, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot("__all_sync", mask, predicate != 0, false, site) == mask;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, EMULATOR_SITE) {
  unsigned long long bits = 0;
  memcpy(&bits, &value, sizeof value);
  return emulator::ballot("__match_any_sync", mask, bits, true, site);
}
inline unsigned __activemask() { emulator::fault("__activemask has no meaning here: name the lanes that take part"); }

inline void __threadfence() {}
inline void __threadfence_block() {}

#define EMULATOR_ATOMIC(name, type_test, result)                         \
  template <typename T>                                                  \
  T name(T* address, typename std::common_type<T>::type value) {         \
    static_assert(std::is_##type_test<T>::value, #name " of this type"); \
    return emulator::atomic(address, [=](T old) { return T(result); });  \
  }
EMULATOR_ATOMIC(atomicAdd, arithmetic, old + value)
EMULATOR_ATOMIC(atomicSub, integral, old - value)
EMULATOR_ATOMIC(atomicMin, integral, min(old, value))
EMULATOR_ATOMIC(atomicMax, integral, max(old, value))
EMULATOR_ATOMIC(atomicOr, integral, old | value)
EMULATOR_ATOMIC(atomicAnd, integral, old& value)
EMULATOR_ATOMIC(atomicXor, integral, old ^ value)
EMULATOR_ATOMIC(atomicExch, arithmetic, ((void)old, value))
#undef EMULATOR_ATOMIC
template <typename T>
T atomicCAS(T* address, typename std::common_type<T>::type expected, typename std::common_type<T>::type value) {
  static_assert(std::is_integral<T>::value, "atomicCAS of this type");
  return emulator::atomic(address, [=](T old) { return old == expected ? value : old; });
}
