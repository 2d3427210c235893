// Runs every case under several seeds, and writes a line of JSON about each: how often it was caught, and how. If there
// are arguments, only the cases that they name run.

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "faults.h"

void root_optimizer::cuda::require(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  const std::string fault = emulator::last_fault();
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorName(status) + (fault.empty() ? "" : ", " + fault));
}

namespace {

constexpr int kSeeds = 8;

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

/// The symptom that a run under this seed shows; empty if there is none.
std::string symptom(const Case& test, bool broken, uint64_t seed) {
  emulator::reset(seed);
  try {
    if (!test.is_right(broken)) return "wrong result";
    // Something that the case does not check may still have gone wrong.
    root_optimizer::cuda::require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

void report(const Case& test, bool broken) {
  int caught = 0;
  std::string how;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    const std::string shown = symptom(test, broken, uint64_t(seed));
    if (shown.empty()) continue;
    ++caught;
    if (how.empty()) how = shown;
  }
  printf("{\"case\": %s, \"broken\": %s, \"caught\": %d, \"seeds\": %d, \"how\": %s}\n", quoted(test.name).c_str(),
         broken ? "true" : "false", caught, kSeeds, quoted(how).c_str());
}

}  // namespace

int main(int count, char** names) {
  for (const auto* cases :
       {&block_cases, &memory_cases, &copy_cases, &hopper_cases, &stream_cases, &arithmetic_cases, &runtime_cases}) {
    for (const Case& test : *cases) {
      if (count > 1 && std::find(names + 1, names + count, std::string(test.name)) == names + count) continue;
      report(test, false);
      if (test.can_break) report(test, true);
    }
  }
}
