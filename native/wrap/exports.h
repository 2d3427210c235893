#pragma once

#include <napi.h>

namespace root_optimizer::wrap {

// The functions of binding.d.ts, by the file that has them.

// devices.cpp
Napi::Value devices(const Napi::CallbackInfo& info);
Napi::Value device_obstacle(const Napi::CallbackInfo& info);

// functions.cpp
/// Makes what the functions keep from call to call. Runs once in each environment.
void prepare_functions(Napi::Env env);
Napi::Value orthogonalize(const Napi::CallbackInfo& info);
Napi::Value orthogonalize_sync(const Napi::CallbackInfo& info);
Napi::Value soft_threshold(const Napi::CallbackInfo& info);
Napi::Value soft_threshold_sync(const Napi::CallbackInfo& info);
Napi::Value are_finite(const Napi::CallbackInfo& info);

// measurement.cpp: for benchmarks and tests alone
Napi::Value newton_schulz_plan(const Napi::CallbackInfo& info);
Napi::Value cpu_peak(const Napi::CallbackInfo& info);
Napi::Value profile(const Napi::CallbackInfo& info);
Napi::Value step_times(const Napi::CallbackInfo& info);

}  // namespace root_optimizer::wrap
