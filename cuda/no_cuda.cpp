// Stands in for the CUDA backend where the addon is built without it, so that no caller needs an #ifdef.

#include "../native/devices.h"
#include "../native/error.h"

namespace root_optimizer {

static const char* const kReason = "this build of the addon has no CUDA backend";

std::unique_ptr<Backend> make_cuda_backend(int, Arithmetic) { throw Error("ERR_DEVICE_UNAVAILABLE", kReason); }

CudaReport cuda_report() { return {.devices = {}, .reason = kReason}; }

std::string cuda_obstacle(int) { return kReason; }

}  // namespace root_optimizer
