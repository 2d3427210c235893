#include "exports.h"

#include "device_choice.h"
#include "errors.h"
#include "optimizer.h"

namespace root_optimizer::wrap {

Napi::Value newton_schulz_plan(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const bool compensated = boolean(info[2], "compensated");
    const DeviceChoice choice(info[0], Napi::Number::New(env, 0), precision_of(info[1]), compensated);
    const int64_t rows = integer(info[3], "rows", 1);
    const int64_t columns = integer(info[4], "columns", 1);
    const ProductPlan products = plan_products(rows, columns, coefficient_list(info[5]), choice.arithmetic);
    Napi::Array legs = Napi::Array::New(env, products.legs.size());
    for (uint32_t i = 0; i < products.legs.size(); ++i) legs.Set(i, Napi::Number::New(env, products.legs[i]));
    const bool mixes = products.square == Precision::float32 && choice.arithmetic.matrix != Precision::float32;
    const Napi::Object plan = Napi::Object::New(env);
    plan.Set("form", products.is_gram() ? "gram" : "standard");
    plan.Set("legs", legs);
    plan.Set("splitLegs", products.split_legs);
    plan.Set("flops", products.flops(rows, columns));
    plan.Set("float32Flops", mixes ? products.gram_square_flops(rows, columns) : 0);
    return plan;
  });
}

Napi::Value cpu_peak(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    return Napi::Number::New(info.Env(), root_optimizer::cpu_peak(precision_of(info[0])));
  });
}

Napi::Value profile(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    Optimizer& optimizer = OptimizerWrap::idle(info[0]);
    if (optimizer.store() != nullptr) reject("optimizer", "on the CPU");
    optimizer.profile();
    return info.Env().Undefined();
  });
}

Napi::Value step_times(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    const StepTimes times = OptimizerWrap::idle(info[0]).step_times();
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("checks", times.checks);
    object.Set("proximal", times.proximal);
    object.Set("products", times.products);
    object.Set("updates", times.updates);
    return object;
  });
}

}  // namespace root_optimizer::wrap
