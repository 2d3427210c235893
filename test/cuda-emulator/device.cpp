#include "device.h"

#include <cuda.h>

#include <emulated_device.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace emulator {

thread_local int current_device = 0;
thread_local bool has_context = false;
thread_local cudaError_t last_error = cudaSuccess;

namespace {

struct ErrorName {
  cudaError_t error;
  const char* name;
  const char* text;
};

#define NAMED(error, text) \
  { error, #error, text }
const ErrorName kErrors[] = {
    NAMED(cudaSuccess, "no error"),
    NAMED(cudaErrorInvalidValue, "invalid argument"),
    NAMED(cudaErrorMemoryAllocation, "out of memory"),
    NAMED(cudaErrorInitializationError, "initialization error"),
    NAMED(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    NAMED(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    NAMED(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    NAMED(cudaErrorInvalidDeviceFunction, "invalid device function"),
    NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    NAMED(cudaErrorInvalidDevice, "invalid device ordinal"),
    NAMED(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    NAMED(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    NAMED(cudaErrorNotReady, "device not ready"),
    NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    NAMED(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    NAMED(cudaErrorMisalignedAddress, "misaligned address"),
    NAMED(cudaErrorLaunchFailure, "unspecified launch failure"),
    NAMED(cudaErrorNotSupported, "operation not supported"),
    NAMED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    NAMED(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    NAMED(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    NAMED(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    NAMED(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    NAMED(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    NAMED(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    NAMED(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    NAMED(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    NAMED(cudaErrorUnknown, "unknown error"),
};
#undef NAMED

const ErrorName& named(cudaError_t error) {
  for (const ErrorName& entry : kErrors) {
    if (entry.error == error) return entry;
  }
  static const ErrorName unrecognized{cudaErrorUnknown, "unrecognized error code", "unrecognized error code"};
  return unrecognized;
}

const char* variable(const char* name, const char* otherwise) {
  const char* value = getenv(name);
  return value && *value ? value : otherwise;
}

[[noreturn]] void reject(const char* name) {
  fprintf(stderr, "emulator: %s=%s is not understood\n", name, getenv(name));
  abort();
}

}  // namespace

Settings::Settings()
    : seed(strtoull(variable("EMULATOR_SEED", "1"), nullptr, 10)),
      devices(atoi(variable("EMULATOR_DEVICES", "2"))),
      memory(strtoull(variable("EMULATOR_MEMORY", "2147483648"), nullptr, 10)),
      driver(atoi(variable("EMULATOR_DRIVER", "13000"))),
      rounded_sums(strcmp(variable("EMULATOR_SUMS", "cut"), "rounded") == 0),
      traffic(variable("EMULATOR_TRAFFIC", "")) {
  if (!rounded_sums && strcmp(variable("EMULATOR_SUMS", "cut"), "cut") != 0) reject("EMULATOR_SUMS");
  if (sscanf(variable("EMULATOR_CAPABILITY", "9.0"), "%d.%d", &major, &minor) != 2) reject("EMULATOR_CAPABILITY");
  // call:count=error, separated by commas
  std::istringstream list(variable("EMULATOR_FAIL", ""));
  for (std::string entry; std::getline(list, entry, ',');) {
    const size_t colon = entry.find(':'), equals = entry.find('=');
    if (colon == std::string::npos || equals == std::string::npos) reject("EMULATOR_FAIL");
    const std::string wanted = entry.substr(equals + 1);
    const auto error = std::find_if(std::begin(kErrors), std::end(kErrors), [&](auto& e) { return wanted == e.name; });
    if (error == std::end(kErrors)) reject("EMULATOR_FAIL");
    failures.push_back({entry.substr(0, colon), atoi(&entry[colon + 1]), error->error});
  }
}

State::State() {
  for (int id = 0; id < settings.devices; ++id) {
    Device device;
    device.id = id;
    pools.insert(device.default_pool = new CUmemPoolHandle_st{id});
    streams.insert(device.legacy = new CUstream_st(id, true));
    devices.push_back(device);
  }
}

static std::unique_ptr<State>& instance() {
  // Never destroyed: threads may outlive static objects.
  static std::unique_ptr<State>& state = *new std::unique_ptr<State>(new State);
  return state;
}

State& state() { return *instance(); }

void reset(uint64_t seed) {
  State& former = state();
  former.memory.clear();
  for (CUstream_st* stream : former.streams) delete stream;
  for (CUevent_st* event : former.events) delete event;
  for (CUmemPoolHandle_st* pool : former.pools) delete pool;
  instance().reset(new State);
  if (seed != 0) {
    state().settings.seed = seed;
    state().random = Random(seed);
  }
  current_device = 0;
  has_context = true;
  last_error = cudaSuccess;
}

const char* last_fault() { return state().last_fault.c_str(); }

cudaError_t enter(const char* call) {
  const cudaError_t status = enter_query(call);
  if (status == cudaSuccess && !has_context) {
    // CUDA would make a context on device 0, which a library must not do behind its user's back.
    report_fault(device(), cudaErrorInitializationError, std::string(call) + " without a context");
  }
  return status == cudaSuccess ? device().error : status;
}

cudaError_t enter_query(const char* call) {
  Settings& settings = state().settings;
  cudaError_t injected = cudaSuccess;
  for (Failure& failure : settings.failures) {
    if (failure.call == call && --failure.countdown == 0) injected = failure.error;
  }
  if (injected != cudaSuccess) return injected;
  if (settings.driver < CUDART_VERSION) return cudaErrorInsufficientDriver;
  if (settings.devices == 0) return cudaErrorNoDevice;
  return cudaSuccess;
}

void report_fault(Device& device, cudaError_t error, const std::string& message) {
  State& all = state();
  all.last_fault = message;
  if (device.error == cudaSuccess) device.error = error;
  fprintf(stderr, "emulator: device %d, %s (EMULATOR_SEED=%llu)\n", device.id, message.c_str(),
          static_cast<unsigned long long>(all.settings.seed));
}

}  // namespace emulator

using emulator::call;
using emulator::state;

const char* cudaGetErrorName(cudaError_t error) { return emulator::named(error).name; }
const char* cudaGetErrorString(cudaError_t error) { return emulator::named(error).text; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = emulator::last_error;
  emulator::last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return emulator::last_error; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = state().settings.driver;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  const auto body = [=] {
    *count = state().settings.devices;
    return cudaSuccess;
  };
  return call(__func__, body, emulator::enter_query);
}

cudaError_t cudaSetDevice(int device) {
  emulator::has_context = true;  // the thread is left with a context even if this fails
  const auto body = [=] {
    if (device < 0 || device >= state().settings.devices) return cudaErrorInvalidDevice;
    emulator::current_device = device;
    return emulator::device().error;
  };
  return call(__func__, body, emulator::enter_query);
}

cudaError_t cudaGetDevice(int* device) {
  return call(__func__, [=] {
    *device = emulator::current_device;
    return cudaSuccess;
  });
}

// Two of the driver's functions, for tests to call as well. A device's context is the device.
extern "C" __attribute__((visibility("default"))) int cuCtxGetCurrent(void** context) {
  *context = emulator::has_context ? &emulator::device() : nullptr;
  return 0;
}

extern "C" __attribute__((visibility("default"))) int cuCtxSetCurrent(void* context) {
  emulator::has_context = context != nullptr;
  emulator::current_device = context == nullptr ? 0 : static_cast<emulator::Device*>(context)->id;
  return 0;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const auto body = [=] {
    const std::string wanted = name;
    *function = wanted == "cuCtxGetCurrent"          ? reinterpret_cast<void*>(cuCtxGetCurrent)
                : wanted == "cuCtxSetCurrent"        ? reinterpret_cast<void*>(cuCtxSetCurrent)
                : wanted == "cuTensorMapEncodeTiled" ? reinterpret_cast<void*>(cuTensorMapEncodeTiled)
                                                     : nullptr;
    if (found) *found = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
  };
  return call(__func__, body, emulator::enter_query);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const auto body = [=] {
    const emulator::Settings& settings = state().settings;
    if (device < 0 || device >= settings.devices) return cudaErrorInvalidDevice;
    *properties = {};
    strcpy(properties->name, "Emulated GPU");
    properties->totalGlobalMem = settings.memory;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = 227 << 10;
    properties->sharedMemPerMultiprocessor = 228 << 10;
    properties->reservedSharedMemPerBlock = 1 << 10;
    properties->regsPerBlock = 65536;
    properties->warpSize = warpSize;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    for (int i = 0; i < 3; ++i) {
      properties->maxThreadsDim[i] = i < 2 ? 1024 : 64;
      properties->maxGridSize[i] = i < 1 ? 0x7fffffff : 65535;
    }
    properties->major = settings.major;
    properties->minor = settings.minor;
    properties->multiProcessorCount = 2;
    properties->concurrentKernels = 1;
    properties->pciBusID = device + 1;
    properties->asyncEngineCount = 2;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = 5120;
    properties->l2CacheSize = 50 << 20;
    properties->memoryPoolsSupported = 1;
    return cudaSuccess;
  };
  return call(__func__, body, emulator::enter_query);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t status = call(__func__, [&] { return cudaGetDeviceProperties(&properties, device); });
  if (status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(properties.sharedMemPerBlock); break;
    case cudaDevAttrWarpSize: *value = properties.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = properties.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = int(properties.sharedMemPerMultiprocessor); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(properties.sharedMemPerBlockOptin); break;
    case cudaDevAttrMemoryPoolsSupported: *value = properties.memoryPoolsSupported; break;
    default: return emulator::last_error = cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
