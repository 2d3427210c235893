#include "processor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "../error.h"

namespace root_optimizer::cpu {

std::string processor_name() {
#if defined(__linux__)
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
#elif defined(__APPLE__)
  char name[256];
  size_t size = sizeof name;
  if (sysctlbyname("machdep.cpu.brand_string", name, &size, nullptr, 0) == 0) return name;
#endif
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "arm64";
#else
  return "unknown processor";
#endif
}

namespace {

#if defined(__linux__)
// The cores that a container may use, rounded up. Without a limit the number is the largest int.
int cgroup_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota, period;
  if (file >> quota >> period && quota > 0 && period > 0) return std::max(1, int(std::ceil(quota / period)));
  return std::numeric_limits<int>::max();
}
#endif

int count_physical_cores() {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    // Threads of one core list the same siblings.
    std::set<std::string> cores;
    int logical = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      ++logical;
      std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      std::string siblings;
      if (std::getline(file, siblings)) cores.insert(siblings);
    }
    if (logical > 0) return std::min(cores.empty() ? logical : int(cores.size()), cgroup_cores());
  }
#elif defined(__APPLE__)
  int cores = 0;
  size_t size = sizeof cores;
  if (sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) == 0 && cores > 0) return cores;
#endif
  return std::max(1, int(std::thread::hardware_concurrency()));
}

}  // namespace

int physical_cores() {
  static const int cores = count_physical_cores();
  return cores;
}

int64_t second_level_cache() {
  int64_t bytes = 0;
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#elif defined(__APPLE__)
  size_t size = sizeof bytes;
  if (sysctlbyname("hw.l2cachesize", &bytes, &size, nullptr, 0) != 0) bytes = 0;
#endif
  return bytes >= (64 << 10) ? bytes : 256 << 10;
}

InstructionSets chosen_sets() {
  const Kernels* widest = nullptr;
  std::vector<InstructionSets> available;
  for (const Kernels* kernels : {avx512_bf16_kernels(), avx512_kernels(), avx2_kernels(), baseline_kernels()}) {
    if (kernels == nullptr) continue;
    if (widest == nullptr) widest = kernels;
    available.push_back({.name = kernels->name, .vectors = kernels});
  }
  const auto with_tiles = [&](const Kernels* tiles) {
    return InstructionSets{.name = tiles->name, .vectors = widest, .tiles = tiles};
  };
  if (const Kernels* tiles = amx_kernels()) available.insert(available.begin(), with_tiles(tiles));
  if (const Kernels* tiles = emulated_amx_kernels()) available.push_back(with_tiles(tiles));
  const char* wanted = std::getenv("ROOT_OPTIMIZER_INSTRUCTION_SET");
  std::string names;
  for (const InstructionSets& sets : available) {
    if (wanted == nullptr || *wanted == 0 || std::string(wanted) == sets.name) return sets;
    names += (names.empty() ? "" : ", ") + std::string(sets.name);
  }
  throw Error("ERR_INVALID_ARGUMENT",
              "Expected ROOT_OPTIMIZER_INSTRUCTION_SET to be one of " + names + ", got \"" + wanted + "\"");
}

}  // namespace root_optimizer::cpu
