#include "functions.h"

#include <algorithm>
#include <functional>

#include "readers.h"
#include "../functions.h"
#include "spare_backend.h"

namespace root_optimizer {

namespace {

Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const CpuReport cpu_info = cpu_report();
    const Napi::Object cpu = Napi::Object::New(env);
    cpu.Set("description", cpu_info.description);
    cpu.Set("instructionSet", cpu_info.instruction_set);
    cpu.Set("physicalCores", cpu_info.physical_cores);
    Napi::Array precisions = Napi::Array::New(env);
    precisions.Set(0u, "float32");
    if (cpu_info.bfloat16) precisions.Set(1u, "bfloat16");
    cpu.Set("precisions", precisions);

    const CudaReport cuda_info = cuda_report();
    Napi::Array list = Napi::Array::New(env, cuda_info.devices.size());
    for (uint32_t i = 0; i < cuda_info.devices.size(); ++i) {
      const Napi::Object device = Napi::Object::New(env);
      device.Set("name", cuda_info.devices[i].name);
      device.Set("description", cuda_info.devices[i].description);
      device.Set("memoryBytes", cuda_info.devices[i].memory_bytes);
      list.Set(i, device);
    }
    const Napi::Object cuda = Napi::Object::New(env);
    cuda.Set("devices", list);
    cuda.Set("reason", cuda_info.reason.empty() ? env.Null() : Napi::Value(Napi::String::New(env, cuda_info.reason)));

    const Napi::Object report = Napi::Object::New(env);
    report.Set("cpu", cpu);
    report.Set("cuda", cuda);
    return report;
  });
}

Napi::Value device_obstacle(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const int index = cuda_index(text(info[0], "device"));
    if (index < 0) reject("device", "'cuda:N'");
    const std::string obstacle = cuda_obstacle(index);
    return obstacle.empty() ? env.Null() : Napi::Value(Napi::String::New(env, obstacle));
  });
}

Napi::Value newton_schulz_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const BackendChoice choice(info[0], Napi::Number::New(env, 0), precision_of(info[1]));
    const Arithmetic arithmetic =
        choice.cuda < 0 ? cpu_arithmetic(choice.precision) : cuda_arithmetic(choice.precision);
    const int64_t rows = integer(info[2], "rows", 1);
    const int64_t columns = integer(info[3], "columns", 1);
    const int64_t tall = std::max(rows, columns);
    const int64_t narrow = std::min(rows, columns);
    const Schedule schedule = plan_newton_schulz(tall, narrow, coefficient_list(info[4]), arithmetic);
    Napi::Array legs = Napi::Array::New(env, schedule.legs.size());
    for (uint32_t i = 0; i < schedule.legs.size(); ++i) legs.Set(i, schedule.legs[i]);
    const Napi::Object plan = Napi::Object::New(env);
    plan.Set("form", schedule.gram() ? "gram" : "standard");
    plan.Set("legs", legs);
    plan.Set("flops", schedule.flops(tall, narrow));
    plan.Set("float32Flops", schedule.square == Precision::float32 && arithmetic.precision != Precision::float32
                                 ? schedule.square_flops(narrow)
                                 : 0);
    return plan;
  });
}

Napi::Value cpu_peak(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), root_optimizer::cpu_peak(precision_of(info[0])));
  });
}

using Spare = std::shared_ptr<SpareBackend>;  // shared with calls that outlive their environment

/// Where a function computes.
struct Place {
  BackendChoice choice;
  Spare spare;

  Place(const Napi::CallbackInfo& info, Precision precision)
      : choice(info[0], info[1], precision), spare(*info.Env().GetInstanceData<Spare>()) {}

  template <typename Body>
  auto run(Body&& body) const {
    return choice.cuda < 0 ? spare->lend(choice.threads, choice.precision, body) : body(*choice.make());
  }
};

struct OrthogonalizeCall {
  Place place;
  Span<float> input, output;
  std::vector<MatrixLayout> matrices;
  std::vector<std::vector<Coefficients>> coefficients;

  explicit OrthogonalizeCall(const Napi::CallbackInfo& info) : place(info, precision_of(info[2])) {
    const size_t size = floats(info[3], "input").size;
    matrices = matrix_layouts(info[5], int64_t(size));
    const Napi::Array array = list(info[6], "coefficients");
    if (matrices.empty() || array.Length() != matrices.size()) reject("coefficients", "one for each matrix");
    for (uint32_t i = 0; i < array.Length(); ++i) coefficients.push_back(coefficient_list(array[i]));
    // Last, when no getter can run any more.
    input = floats(info[3], "input", size);
    output = floats(info[4], "output", size);
    // Each matrix is read whole before it is written, so both may be the same; but not where one begins in the other.
    const std::less<const float*> before;
    if (output.data != input.data && before(output.data, input.data + size) && before(input.data, output.data + size)) {
      reject("out", "x or to share no memory with it");
    }
  }

  void operator()() const {
    place.run([this](Backend& backend) {
      orthogonalize(backend, input.data, output.data, matrices, coefficients);
      return true;
    });
  }
};

Napi::Value orthogonalize_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    OrthogonalizeCall{info}();
    return info.Env().Undefined();
  });
}

Napi::Value orthogonalize_async(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const OrthogonalizeCall call{info};
    return Task::start(info.Env(), {info[3], info[4]}, call,
                       [spans = std::vector{call.input, call.output}](Napi::Env env, const Napi::Array& kept) {
                         require_attached(kept, spans);
                         return env.Undefined();
                       });
  });
}

struct SoftThresholdCall {
  Place place;
  Span<float> input, base, outliers;
  Threshold threshold;

  explicit SoftThresholdCall(const Napi::CallbackInfo& info)
      : place(info, Precision::float32),
        input(floats(info[2], "input")),
        base(floats(info[3], "base", input.size)),
        outliers(floats(info[4], "outliers", input.size)),
        threshold{finite_number(info[5], "quantile"), finite_number(info[6], "scale")} {
    if (input.size == 0) reject("input", "not empty");
    if (threshold.quantile < 0 || threshold.quantile > 1) reject("quantile", "in [0, 1]");
  }

  double operator()() const {
    return place.run([this](Backend& backend) {
      return soft_threshold(backend, input.data, base.data, outliers.data, int64_t(input.size), threshold);
    });
  }
};

Napi::Value soft_threshold_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value { return Napi::Number::New(info.Env(), SoftThresholdCall{info}()); });
}

Napi::Value soft_threshold_async(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const auto result = std::make_shared<double>();
    return Task::start(
        info.Env(), {info[2], info[3], info[4]}, [=, call = SoftThresholdCall{info}] { *result = call(); },
        [=](Napi::Env env, const Napi::Array&) { return Napi::Number::New(env, *result); });
  });
}

}  // namespace

void define_functions(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Spare(std::make_shared<SpareBackend>()));
  exports.Set("devices", Napi::Function::New<devices>(env, "devices"));
  exports.Set("deviceObstacle", Napi::Function::New<device_obstacle>(env, "deviceObstacle"));
  exports.Set("newtonSchulzPlan", Napi::Function::New<newton_schulz_plan>(env, "newtonSchulzPlan"));
  exports.Set("cpuPeak", Napi::Function::New<cpu_peak>(env, "cpuPeak"));
  exports.Set("orthogonalize", Napi::Function::New<orthogonalize_async>(env, "orthogonalize"));
  exports.Set("orthogonalizeSync", Napi::Function::New<orthogonalize_sync>(env, "orthogonalizeSync"));
  exports.Set("softThreshold", Napi::Function::New<soft_threshold_async>(env, "softThreshold"));
  exports.Set("softThresholdSync", Napi::Function::New<soft_threshold_sync>(env, "softThresholdSync"));
}

}  // namespace root_optimizer
