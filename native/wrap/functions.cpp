#include "exports.h"

#include <functional>
#include <memory>

#include "../functions.h"
#include "device_choice.h"
#include "errors.h"
#include "readers.h"
#include "spare_backend.h"
#include "task.h"

namespace root_optimizer::wrap {

namespace {

using Spare = std::shared_ptr<SpareBackend>;  // shared with calls that outlive their environment

/// Where a function computes.
struct Place {
  DeviceChoice choice;
  Spare spare;

  Place(const Napi::CallbackInfo& info, Precision precision, bool compensated)
      : choice(info[0], info[1], precision, compensated), spare(*info.Env().GetInstanceData<Spare>()) {}

  template <typename Body>
  auto run(Body&& body) const {
    return spare->lend(choice, body);
  }
};

struct OrthogonalizeCall {
  Place place;
  Span<float> input, output;
  std::vector<MatrixLayout> matrices;
  std::vector<std::vector<Coefficients>> coefficients;

  explicit OrthogonalizeCall(const Napi::CallbackInfo& info)
      : place(info, precision_of(info[2]), boolean(info[3], "compensated")) {
    const size_t size = floats(info[4], "input").size;
    matrices = matrix_layouts(info[6], int64_t(size));
    const Napi::Array array = list(info[7], "coefficients");
    if (matrices.empty() || array.Length() != matrices.size()) reject("coefficients", "one for each matrix");
    for (uint32_t i = 0; i < array.Length(); ++i) coefficients.push_back(coefficient_list(array[i]));
    // Read last, when no getter can run any more.
    input = floats(info[4], "input", size);
    output = floats(info[5], "output", size);
    // Each matrix is read whole before it is written, so both arrays may be one; but neither may begin in the other.
    const std::less<const float*> before;
    if (output.data != input.data && before(output.data, input.data + size) && before(input.data, output.data + size)) {
      reject("out", "x or to share no memory with it");
    }
  }

  void operator()() const {
    place.run([this](Backend& backend) {
      root_optimizer::orthogonalize(backend, input.data, output.data, matrices, coefficients);
      return true;
    });
  }
};

struct SoftThresholdCall {
  Place place;
  Span<float> input, base, outliers;
  Threshold threshold;

  explicit SoftThresholdCall(const Napi::CallbackInfo& info)
      : place(info, Precision::float32, false),
        input(floats(info[2], "input")),
        base(floats(info[3], "base", input.size)),
        outliers(floats(info[4], "outliers", input.size)),
        threshold{.quantile = finite_number(info[5], "quantile"), .scale = finite_number(info[6], "scale")} {
    if (input.size == 0) reject("input", "not empty");
    if (threshold.quantile < 0 || threshold.quantile > 1) reject("quantile", "in [0, 1]");
  }

  double operator()() const {
    return place.run([this](Backend& backend) {
      return root_optimizer::soft_threshold(backend, input.data, base.data, outliers.data, int64_t(input.size),
                                            threshold);
    });
  }
};

}  // namespace

void prepare_functions(Napi::Env env) { env.SetInstanceData(new Spare(std::make_shared<SpareBackend>())); }

Napi::Value orthogonalize_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    OrthogonalizeCall{info}();
    return info.Env().Undefined();
  });
}

Napi::Value orthogonalize(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const OrthogonalizeCall call{info};
    return Task::start(info.Env(), {info[4], info[5]}, call,
                       [spans = std::vector{call.input, call.output}](Napi::Env env, const Napi::Array& kept) {
                         require_attached(kept, spans);
                         return env.Undefined();
                       });
  });
}

Napi::Value soft_threshold_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value { return Napi::Number::New(info.Env(), SoftThresholdCall{info}()); });
}

Napi::Value soft_threshold(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const auto result = std::make_shared<double>();
    return Task::start(
        info.Env(), {info[2], info[3], info[4]}, [=, call = SoftThresholdCall{info}] { *result = call(); },
        [=](Napi::Env env, const Napi::Array&) { return Napi::Number::New(env, *result); });
  });
}

Napi::Value are_finite(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const bool non_negative = boolean(info[1], "nonNegative");
    const Span<float> values = floats(info[0], "values");
    return Napi::Boolean::New(info.Env(), root_optimizer::are_finite(values.data, values.size, non_negative));
  });
}

}  // namespace root_optimizer::wrap
