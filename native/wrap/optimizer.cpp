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

struct DeviceArray {
  float* data;
  size_t count;
};

DeviceArray device_array(const Napi::Value& value, Optimizer& optimizer, size_t index) {
  const std::string name = text(value, "array");
  const ParameterLayout& layout = optimizer.parameters()[index];
  State& state = optimizer.state(index);
  const auto array = [](const Owned<float>& owned) { return DeviceArray{owned.data(), owned.count()}; };
  if (layout.matrices.empty()) {
    if (name == "expAvg") return array(state.exp_avg());
    if (name == "expAvgSq") return array(state.exp_avg_sq());
  } else {
    if (name == "momentumBuffer") return array(state.momentum());
    if (name == "rowSecondMoment") return array(state.row_second_moment());
  }
  if (name != "data" || optimizer.store() == nullptr) reject("array", "one that the device holds");
  return {optimizer.store()->arrays[index].data, size_t(layout.size)};
}

}  // namespace

/// A piece of an array on the device, and the memory on the host that it goes to or comes from.
struct OptimizerWrap::Piece {
  float* device;
  float* host;
  size_t bytes;
};

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
       InstanceMethod<&OptimizerWrap::device_memory>("deviceMemory"),
       InstanceMethod<&OptimizerWrap::read_state>("readState"),
       InstanceMethod<&OptimizerWrap::write_state>("writeState"), InstanceMethod<&OptimizerWrap::found>("found"),
       InstanceMethod<&OptimizerWrap::set_found>("setFound"), InstanceMethod<&OptimizerWrap::dispose>("dispose")});
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

Napi::Value OptimizerWrap::read_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Piece piece = read_piece(info);
    session_->optimizer.backend().read(piece.host, piece.device, piece.bytes);
    return info.Env().Undefined();
  });
}

Napi::Value OptimizerWrap::write_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Piece piece = read_piece(info);
    session_->optimizer.backend().write(piece.device, piece.host, piece.bytes);
    return info.Env().Undefined();
  });
}

// Reading the arguments of readState and writeState runs no script.
OptimizerWrap::Piece OptimizerWrap::read_piece(const Napi::CallbackInfo& info) const {
  Optimizer& optimizer = idle_optimizer();
  const size_t index = parameter_index(info[0], optimizer);
  const DeviceArray array = device_array(info[1], optimizer, index);
  const size_t offset = size_t(integer(info[2], "offset", 0));
  const Span<float> values = floats(info[3], "values");
  if (offset > array.count || values.size > array.count - offset) reject("offset and values", "within the array");
  return {.device = array.data + offset, .host = values.data, .bytes = values.size * sizeof(float)};
}

Napi::Value OptimizerWrap::found(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    Optimizer& optimizer = idle_optimizer();
    const size_t index = parameter_index(info[0], optimizer);
    State& state = optimizer.state(index);
    const bool adamw = optimizer.parameters()[index].matrices.empty();
    const std::vector<Thresholds> thresholds = state.thresholds().values();
    const Napi::Object result = Napi::Object::New(env);
    const auto set = [&](const char* name, double Thresholds::*field, bool found) {
      const Napi::Array values = Napi::Array::New(env, thresholds.size());
      for (uint32_t i = 0; i < thresholds.size(); ++i) {
        if (found) {
          values.Set(i, Napi::Number::New(env, thresholds[i].*field));
        } else {
          values.Set(i, env.Null());
        }
      }
      result.Set(name, values);
    };
    if (!adamw) set("thresholds", &Thresholds::threshold, state.found().clips);
    set("gradientThresholds", &Thresholds::gradient_threshold, state.found().clips_gradient);
    set("gradientScales", &Thresholds::gradient_scale, state.found().clips_gradient);
    if (!adamw) result.Set("normalizes", Napi::Boolean::New(env, state.found().normalizes));
    return result;
  });
}

Napi::Value OptimizerWrap::set_found(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const size_t index = parameter_index(info[0], idle_optimizer());
    const Napi::Object given = object(info[1], "found");
    const bool adamw = session_->optimizer.parameters()[index].matrices.empty();
    std::vector<Thresholds> values(session_->optimizer.state(index).thresholds().count());
    const auto read = [&](const char* name, double Thresholds::*field) {
      const Napi::Array numbers = list(given.Get(name), name);
      if (numbers.Length() != values.size()) reject(name, "one for each matrix");
      bool found = true;
      for (uint32_t i = 0; i < values.size(); ++i) {
        const Napi::Value one = numbers[i];
        found = found && !one.IsNull();
        values[i].*field = found ? finite_number(one, name) : 0;
      }
      return found;
    };
    State::Found found;
    found.clips = !adamw && read("thresholds", &Thresholds::threshold);
    found.clips_gradient = read("gradientThresholds", &Thresholds::gradient_threshold);
    read("gradientScales", &Thresholds::gradient_scale);
    found.normalizes = !adamw && boolean(given.Get("normalizes"), "normalizes");

    State& state = idle_optimizer().state(index);  // once more: a getter may have run
    state.thresholds().write(values.data());
    state.after_step(found);
    return info.Env().Undefined();
  });
}

}  // namespace root_optimizer::wrap
