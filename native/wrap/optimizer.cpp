#include "optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "device_choice.h"
#include "errors.h"
#include "readers.h"
#include "task.h"

namespace root_optimizer::wrap {

namespace {

constexpr napi_type_tag kTypeTag{0x52f1b7f0c3a84e5dull, 0x9d1c6a2be80743f5ull};

Napi::Value indices(Napi::Env env, const std::vector<uint32_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, Napi::Number::New(env, values[i]));
  return array;
}

size_t parameter_index(const Napi::Value& value, const Optimizer& optimizer) {
  const int64_t index = integer(value, "index", 0);
  if (size_t(index) >= optimizer.parameters().size()) reject("index", "that of a parameter");
  return size_t(index);
}

}  // namespace

/// The arguments of a step or of a copy of parameters, read once before it starts, and the result of a step.
struct OptimizerWrap::Call {
  std::vector<Napi::Value> values;  // the arrays, for use on the event loop only
  std::vector<Span<float>> spans;   // the memory of the arrays
  std::vector<Arrays> arrays;
  std::vector<Settings> settings;
  std::optional<std::vector<uint32_t>> refused;  // empty before a step returns, and for other work
};

Napi::Function OptimizerWrap::define(Napi::Env env) {
  return DefineClass(
      env, "Optimizer",
      {InstanceAccessor<&OptimizerWrap::memory_bytes>("memoryBytes"), InstanceMethod<&OptimizerWrap::step>("step"),
       InstanceMethod<&OptimizerWrap::step_sync>("stepSync"),
       InstanceMethod<&OptimizerWrap::read_parameters>("readParameters"),
       InstanceMethod<&OptimizerWrap::write_parameters>("writeParameters"),
       InstanceMethod<&OptimizerWrap::write_parameters_sync>("writeParametersSync"),
       InstanceMethod<&OptimizerWrap::zero_gradients>("zeroGradients"),
       InstanceMethod<&OptimizerWrap::device_memory>("deviceMemory"), InstanceMethod<&OptimizerWrap::state>("state"),
       InstanceMethod<&OptimizerWrap::set_state>("setState"), InstanceMethod<&OptimizerWrap::dispose>("dispose")});
}

OptimizerWrap::OptimizerWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  session_ = guard(info.Env(), [&] {
    const DeviceChoice choice(info[0], info[1], precision_of(info[2]), boolean(info[3], "compensated"));
    std::vector<ParameterLayout> layouts = parameter_layouts(info[4]);
    return std::shared_ptr<Session>(new Session{.optimizer = {choice.make(), std::move(layouts)}});
  });
  info.This().As<Napi::Object>().TypeTag(&kTypeTag);
  account_memory(info.Env());
}

OptimizerWrap::~OptimizerWrap() {
  session_.reset();
  account_memory(Env());
}

Optimizer& OptimizerWrap::idle(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTypeTag)) reject("optimizer", "an Optimizer");
  return Unwrap(value.As<Napi::Object>())->idle_optimizer();
}

// Tells the garbage collector how much memory an object of ours holds besides itself.
void OptimizerWrap::account_memory(Napi::Env env) {
  const int64_t bytes = session_ == nullptr ? 0 : int64_t(session_->optimizer.memory_bytes());
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - external_bytes_);
  external_bytes_ = bytes;
}

void OptimizerWrap::dispose(const Napi::CallbackInfo& info) {
  session_.reset();
  account_memory(info.Env());
}

std::shared_ptr<OptimizerWrap::Session> OptimizerWrap::session() const {
  if (session_ == nullptr) throw Error("ERR_DISPOSED", "The optimizer has been disposed of");
  return session_;
}

Optimizer& OptimizerWrap::idle_optimizer() const {
  if (session()->busy) throw Error("ERR_BUSY", "A step is running");
  return session_->optimizer;
}

Napi::Value OptimizerWrap::memory_bytes(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return Napi::Number::New(info.Env(), double(idle_optimizer().memory_bytes())); });
}

// Reading an object may run a script (a getter), which may do anything to the arrays and to this optimizer. So settings
// are read first. What scripts can change is read when none can run any more.
OptimizerWrap::Call OptimizerWrap::read_step(const Napi::CallbackInfo& info) const {
  const std::shared_ptr<Session> kept = session();
  const std::vector<ParameterLayout>& layouts = kept->optimizer.parameters();
  const Napi::Array data = list(info[0], "data");
  const Napi::Array gradients = list(info[1], "gradients");
  const Napi::Array settings = list(info[2], "settings");
  const size_t count = layouts.size();
  const bool on_store = data.Length() == 0 && gradients.Length() == 0 && kept->optimizer.store() != nullptr;
  if (settings.Length() != count || (!on_store && (data.Length() != count || gradients.Length() != count))) {
    reject("data, gradients and settings", "one for each parameter");
  }
  Call call;
  for (uint32_t i = 0; i < count; ++i) {
    call.settings.push_back(settings_of(object(settings[i], "settings[i]"), layouts[i]));
    if (on_store) continue;
    call.values.push_back(data[i]);
    call.values.push_back(gradients[i]);
  }
  for (uint32_t i = 0; i < call.values.size(); ++i) {
    call.spans.push_back(floats(call.values[i], i % 2 == 0 ? "data" : "gradient", size_t(layouts[i / 2].size)));
    if (i % 2 == 1) call.arrays.push_back({.data = call.spans[i - 1].data, .gradient = call.spans[i].data});
  }
  idle_optimizer();
  return call;
}

OptimizerWrap::Call OptimizerWrap::read_data(const Napi::CallbackInfo& info) const {
  const std::shared_ptr<Session> kept = session();
  const std::vector<ParameterLayout>& layouts = kept->optimizer.parameters();
  const Napi::Array data = list(info[0], "data");
  if (data.Length() != layouts.size()) reject("data", "one for each parameter");
  Call call;
  for (uint32_t i = 0; i < layouts.size(); ++i) call.values.push_back(data[i]);
  for (uint32_t i = 0; i < layouts.size(); ++i) {
    call.spans.push_back(floats(call.values[i], "data", size_t(layouts[i].size)));
    call.arrays.push_back({.data = call.spans[i].data});
  }
  idle_optimizer();
  return call;
}

// Runs `work` off the event loop. Meanwhile every other call except `dispose` finds the optimizer busy.
Napi::Value OptimizerWrap::start(const Napi::CallbackInfo& info, Call arguments,
                                 std::function<void(Optimizer&, Call&)> work) {
  const auto call = std::make_shared<Call>(std::move(arguments));
  std::vector<Napi::Value> keep = std::move(call->values);
  keep.push_back(info.This());
  const Napi::Value promise = Task::start(
      info.Env(), keep, [=, session = session_] { work(session->optimizer, *call); },
      [=, this, session = session_](Napi::Env env, const Napi::Array& kept) {
        session->busy = false;
        account_memory(env);
        if (!call->refused || call->refused->empty()) require_attached(kept, call->spans);
        return call->refused ? indices(env, *call->refused) : env.Undefined();
      });
  session_->busy = true;
  return promise;
}

Napi::Value OptimizerWrap::step_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Call call = read_step(info);
    const Napi::Value result = indices(info.Env(), session_->optimizer.step(call.arrays, call.settings));
    account_memory(info.Env());
    return result;
  });
}

Napi::Value OptimizerWrap::step(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start(info, read_step(info),
                 [](Optimizer& optimizer, Call& call) { call.refused = optimizer.step(call.arrays, call.settings); });
  });
}

Napi::Value OptimizerWrap::read_parameters(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start(info, read_data(info), [](Optimizer& optimizer, Call& call) {
      if (ParameterStore* store = optimizer.store()) store->read_data(call.arrays);
    });
  });
}

Napi::Value OptimizerWrap::write_parameters(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start(info, read_data(info), [](Optimizer& optimizer, Call& call) {
      if (ParameterStore* store = optimizer.store()) store->write_data(call.arrays);
    });
  });
}

void OptimizerWrap::write_parameters_sync(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    const Call call = read_data(info);
    if (ParameterStore* store = session_->optimizer.store()) store->write_data(call.arrays);
    return true;
  });
}

void OptimizerWrap::zero_gradients(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    if (ParameterStore* store = idle_optimizer().store()) store->zero_gradients();
    return true;
  });
}

Napi::Value OptimizerWrap::device_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Optimizer& optimizer = session()->optimizer;
    const size_t index = parameter_index(info[0], optimizer);
    const ParameterStore* store = optimizer.store();
    if (store == nullptr) throw Error("ERR_DEVICE_UNAVAILABLE", "The CPU has no memory of its own");
    const auto address = [&](const void* pointer) {
      return Napi::BigInt::New(env, uint64_t(reinterpret_cast<uintptr_t>(pointer)));
    };
    const Napi::Object memory = Napi::Object::New(env);
    memory.Set("data", address(store->arrays[index].data));
    memory.Set("grad", address(store->arrays[index].gradient));
    memory.Set("stream", address(store->stream));
    return memory;
  });
}

Napi::Value OptimizerWrap::state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const size_t index = parameter_index(info[0], idle_optimizer());
    if (!info[1].IsFunction()) reject("allocate", "a function");
    const Napi::Function allocate = info[1].As<Napi::Function>();
    const Napi::Object result = Napi::Object::New(env);
    // An array that V8 cannot make for native code ends the process. One that a script cannot make is an exception.
    const auto set = [&](const char* name, const Owned<float>& from) {
      const size_t count = from.count();
      const Napi::Value array = allocate.Call({Napi::Number::New(env, double(count))});
      const Span<float> values = floats(array, name, count);
      idle_optimizer();  // a script has run
      from.read(values.data);
      result.Set(name, array);
    };
    Optimizer& optimizer = idle_optimizer();
    State& state = optimizer.state(index);
    const std::vector<Thresholds> thresholds = state.thresholds().values();
    const auto set_thresholds = [&](const char* name, double Thresholds::*field, bool found) {
      Napi::Float64Array array = Napi::Float64Array::New(env, thresholds.size());
      for (size_t i = 0; i < thresholds.size(); ++i) array[i] = found ? thresholds[i].*field : std::nan("");
      result.Set(name, array);
    };
    if (optimizer.parameters()[index].matrices.empty()) {
      set("expAvg", state.exp_avg());
      set("expAvgSq", state.exp_avg_sq());
    } else {
      set("momentumBuffer", state.momentum());
      result.Set("rowSecondMoment", env.Null());
      if (state.found().normalizes) set("rowSecondMoment", state.row_second_moment());
      set_thresholds("thresholds", &Thresholds::threshold, state.found().clips);
    }
    set_thresholds("gradientThresholds", &Thresholds::gradient_threshold, state.found().clips_gradient);
    set_thresholds("gradientScales", &Thresholds::gradient_scale, state.found().clips_gradient);
    return result;
  });
}

Napi::Value OptimizerWrap::set_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const size_t index = parameter_index(info[0], idle_optimizer());
    const Napi::Object given = object(info[1], "state");
    const bool adamw = session_->optimizer.parameters()[index].matrices.empty();
    const Napi::Value first = given.Get(adamw ? "expAvg" : "momentumBuffer");
    const Napi::Value second = given.Get(adamw ? "expAvgSq" : "rowSecondMoment");
    const Napi::Value thresholds = given.Get("thresholds");
    const Napi::Value gradient_thresholds = given.Get("gradientThresholds");
    const Napi::Value gradient_scales = given.Get("gradientScales");

    Optimizer& optimizer = idle_optimizer();  // once more: a getter may have run
    State& state = optimizer.state(index);
    Owned<float>& first_array = adamw ? state.exp_avg() : state.momentum();
    Owned<float>& second_array = adamw ? state.exp_avg_sq() : state.row_second_moment();
    const Span<float> first_values = floats(first, adamw ? "expAvg" : "momentumBuffer", first_array.count());
    const bool normalizes = !adamw && !second.IsNull();
    Span<float> second_values;
    if (adamw || normalizes) {
      second_values = floats(second, adamw ? "expAvgSq" : "rowSecondMoment", second_array.count());
    }
    std::vector<Thresholds> values(state.thresholds().count());
    // NaN stands for a threshold that no step has found.
    const auto read = [&](const Napi::Value& value, const char* name, double Thresholds::*field) {
      const Span<double> numbers = doubles(value, name);
      if (numbers.size != values.size()) reject(name, "one for each matrix");
      const bool found =
          std::none_of(numbers.data, numbers.data + numbers.size, [](double x) { return std::isnan(x); });
      for (size_t i = 0; i < values.size(); ++i) values[i].*field = found ? numbers.data[i] : 0;
      return found;
    };
    const bool clips = !adamw && read(thresholds, "thresholds", &Thresholds::threshold);
    const bool clips_gradient = read(gradient_thresholds, "gradientThresholds", &Thresholds::gradient_threshold);
    read(gradient_scales, "gradientScales", &Thresholds::gradient_scale);

    first_array.write(first_values.data);
    if (second_values.data != nullptr) second_array.write(second_values.data);
    state.thresholds().write(values.data());
    state.after_step({.clips = clips, .clips_gradient = clips_gradient, .normalizes = normalizes});
    return info.Env().Undefined();
  });
}

}  // namespace root_optimizer::wrap
