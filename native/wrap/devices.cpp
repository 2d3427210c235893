#include "exports.h"

#include "device_choice.h"
#include "errors.h"

namespace root_optimizer::wrap {

int cuda_index(const std::string& device) {
  const bool named = device.rfind("cuda:", 0) == 0 && device.size() > 5 && device.size() < 9 &&
                     device.find_first_not_of("0123456789", 5) == std::string::npos;
  return named ? std::stoi(device.substr(5)) : -1;
}

DeviceChoice::DeviceChoice(const Napi::Value& device, const Napi::Value& threads_value, Precision precision,
                           bool compensated) {
  const std::string name = text(device, "device");
  const int64_t count = integer(threads_value, "threads", 0);
  if (count > 1024) reject("threads", "at most 1024");
  threads = int(count);
  cuda = cuda_index(name);
  if (cuda < 0 && name != "cpu") reject("device", "'cpu' or 'cuda:N'");
  arithmetic = is_cpu() ? cpu_arithmetic(precision) : cuda_arithmetic(precision, compensated);
}

static Napi::Value text_or_null(Napi::Env env, const std::string& text) {
  return text.empty() ? env.Null() : Napi::Value(Napi::String::New(env, text));
}

static Napi::Object describe(Napi::Env env, const CpuReport& report) {
  const Napi::Object cpu = Napi::Object::New(env);
  cpu.Set("description", report.description);
  cpu.Set("instructionSet", report.instruction_set);
  cpu.Set("physicalCores", report.physical_cores);
  Napi::Array precisions = Napi::Array::New(env);
  precisions.Set(0u, "float32");
  if (report.bfloat16) precisions.Set(1u, "bfloat16");
  if (report.bfloat16x3) precisions.Set(2u, "bfloat16x3");
  cpu.Set("precisions", precisions);
  return cpu;
}

static Napi::Object describe(Napi::Env env, const CudaReport& report) {
  Napi::Array list = Napi::Array::New(env, report.devices.size());
  for (uint32_t i = 0; i < report.devices.size(); ++i) {
    const Napi::Object device = Napi::Object::New(env);
    device.Set("name", report.devices[i].name);
    device.Set("description", report.devices[i].description);
    device.Set("memoryBytes", report.devices[i].memory_bytes);
    list.Set(i, device);
  }
  const Napi::Object cuda = Napi::Object::New(env);
  cuda.Set("devices", list);
  cuda.Set("reason", text_or_null(env, report.reason));
  return cuda;
}

Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Napi::Object report = Napi::Object::New(env);
    report.Set("cpu", describe(env, cpu_report()));
    report.Set("cuda", describe(env, cuda_report()));
    return report;
  });
}

Napi::Value device_obstacle(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const int index = cuda_index(text(info[0], "device"));
    if (index < 0) reject("device", "'cuda:N'");
    return text_or_null(info.Env(), cuda_obstacle(index));
  });
}

}  // namespace root_optimizer::wrap
