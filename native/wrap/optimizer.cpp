#include "optimizer.h"

namespace root_optimizer {

namespace {

std::vector<ParameterLayout> parameter_layouts(const Napi::Value& value) {
  const Napi::Array array = list(value, "parameters");
  std::vector<ParameterLayout> layouts;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object entry = object(array[i], "parameters[i]");
    const int64_t size = integer(entry.Get("size"), "size", 1);
    layouts.push_back({size, matrix_layouts(entry.Get("matrices"), size)});
  }
  return layouts;
}

Settings orthogonal_settings(const Napi::Object& entry, size_t matrices) {
  OrthogonalSettings settings{finite_number(entry.Get("lr"), "lr"),
                              finite_number(entry.Get("momentum"), "momentum"),
                              finite_number(entry.Get("weightDecay"), "weightDecay"),
                              boolean(entry.Get("nesterov"), "nesterov"),
                              std::nullopt,
                              {}};
  if (!entry.Get("threshold").IsNull()) {
    const Napi::Object threshold = object(entry.Get("threshold"), "threshold");
    const double quantile = finite_number(threshold.Get("quantile"), "quantile");
    if (quantile < 0 || quantile > 1) reject("quantile", "in [0, 1]");
    settings.threshold = Threshold{quantile, finite_number(threshold.Get("scale"), "scale")};
  }
  const Napi::Array array = list(entry.Get("matrices"), "matrices");
  if (array.Length() != matrices) reject("matrices", "one for each matrix of the parameter");
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object matrix = object(array[i], "matrices[i]");
    settings.matrices.push_back(
        {finite_number(matrix.Get("updateScale"), "updateScale"), coefficient_list(matrix.Get("coefficients"))});
  }
  return settings;
}

Settings adamw_settings(const Napi::Object& entry) {
  return AdamWSettings{finite_number(entry.Get("lr"), "lr"),
                       finite_number(entry.Get("beta1"), "beta1"),
                       finite_number(entry.Get("beta2"), "beta2"),
                       finite_number(entry.Get("eps"), "eps"),
                       finite_number(entry.Get("weightDecay"), "weightDecay"),
                       integer(entry.Get("step"), "step", 1)};
}

Error disposed() { return {"ERR_DISPOSED", "The optimizer has been disposed of"}; }

Napi::Value indices(Napi::Env env, const std::vector<uint32_t>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) array.Set(i, Napi::Number::New(env, values[i]));
  return array;
}

}  // namespace

/// The arguments of a step, or of a copy of parameters, read once before it starts.
struct OptimizerWrap::Step {
  std::vector<Napi::Value> values;  // arrays, on the event loop only
  std::vector<Span<float>> spans;   // their memory
  std::vector<Arrays> arrays;
  std::vector<Settings> settings;
};

Napi::Function OptimizerWrap::define(Napi::Env env) {
  return DefineClass(
      env, "Optimizer",
      {InstanceAccessor<&OptimizerWrap::threads>("threads"),
       InstanceAccessor<&OptimizerWrap::memory_bytes>("memoryBytes"),
       InstanceAccessor<&OptimizerWrap::step_times>("stepTimes"), InstanceMethod<&OptimizerWrap::step>("step"),
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
    const BackendChoice choice(info[0], info[1], precision_of(info[2]));
    std::vector<ParameterLayout> layouts = parameter_layouts(info[3]);
    const bool profiled = !info[4].IsUndefined() && boolean(info[4], "profile");
    std::unique_ptr<Backend> backend = choice.make();
    if (profiled && !backend->shares_host_memory()) reject("profile", "false on a device other than the CPU");
    return std::make_shared<Session>(std::move(backend), std::move(layouts), profiled);
  });
  account_memory(info.Env());
}

OptimizerWrap::~OptimizerWrap() {
  session_.reset();
  account_memory(Env());
}

// Tells the garbage collector what an object of ours holds besides itself.
void OptimizerWrap::account_memory(Napi::Env env) {
  const int64_t bytes = session_ == nullptr ? 0 : int64_t(session_->optimizer.memory_bytes());
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - external_bytes_);
  external_bytes_ = bytes;
}

void OptimizerWrap::dispose(const Napi::CallbackInfo& info) {
  session_.reset();
  account_memory(info.Env());
}

OptimizerWrap::Session& OptimizerWrap::session() const {
  if (session_ == nullptr) throw disposed();
  return *session_;
}

OptimizerWrap::Session& OptimizerWrap::idle_session() const {
  if (session().busy) throw Error("ERR_BUSY", "A step is running");
  return *session_;
}

Napi::Value OptimizerWrap::threads(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] { return Napi::Number::New(info.Env(), session().optimizer.backend().threads()); });
}

Napi::Value OptimizerWrap::memory_bytes(const Napi::CallbackInfo& info) {
  return guard(info.Env(),
               [&] { return Napi::Number::New(info.Env(), double(idle_session().optimizer.memory_bytes())); });
}

Napi::Value OptimizerWrap::step_times(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&] {
    const StepTimes times = idle_session().optimizer.step_times();
    const Napi::Object object = Napi::Object::New(env);
    object.Set("checks", times.checks);
    object.Set("proximal", times.proximal);
    object.Set("products", times.products);
    object.Set("updates", times.updates);
    return object;
  });
}

// Reading an object may run a script of its own (a getter), which may do anything to the arrays and to us. So settings
// come first, and what scripts can change is looked at when none can run any more.
OptimizerWrap::Step OptimizerWrap::read_step(const Napi::CallbackInfo& info) const {
  const std::shared_ptr<Session> session = session_;
  if (session == nullptr) throw disposed();
  const std::vector<ParameterLayout>& layouts = session->optimizer.parameters();
  const Napi::Array data = list(info[0], "data");
  const Napi::Array gradients = list(info[1], "gradients");
  const Napi::Array settings = list(info[2], "settings");
  const size_t count = layouts.size();
  const bool held = data.Length() == 0 && gradients.Length() == 0 && !session->optimizer.backend().shares_host_memory();
  if (settings.Length() != count || (!held && (data.Length() != count || gradients.Length() != count))) {
    reject("data, gradients and settings", "one for each parameter");
  }
  Step step;
  for (uint32_t i = 0; i < count; ++i) {
    const Napi::Object entry = object(settings[i], "settings[i]");
    const size_t matrices = layouts[i].matrices.size();
    step.settings.push_back(matrices > 0 ? orthogonal_settings(entry, matrices) : adamw_settings(entry));
    if (held) continue;
    step.values.push_back(data[i]);
    step.values.push_back(gradients[i]);
  }
  for (uint32_t i = 0; i < step.values.size(); ++i) {
    step.spans.push_back(floats(step.values[i], i % 2 == 0 ? "data" : "gradient", size_t(layouts[i / 2].size)));
    if (i % 2 == 1) step.arrays.push_back({step.spans[i - 1].data, step.spans[i].data});
  }
  idle_session();
  return step;
}

OptimizerWrap::Step OptimizerWrap::read_data(const Napi::CallbackInfo& info) const {
  const std::shared_ptr<Session> session = session_;
  if (session == nullptr) throw disposed();
  const std::vector<ParameterLayout>& layouts = session->optimizer.parameters();
  const Napi::Array data = list(info[0], "data");
  if (data.Length() != layouts.size()) reject("data", "one for each parameter");
  Step step;
  for (uint32_t i = 0; i < layouts.size(); ++i) step.values.push_back(data[i]);
  for (uint32_t i = 0; i < layouts.size(); ++i) {
    step.spans.push_back(floats(step.values[i], "data", size_t(layouts[i].size)));
    step.arrays.push_back({step.spans[i].data, nullptr});
  }
  idle_session();
  return step;
}

Napi::Value OptimizerWrap::step_sync(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const Step step = read_step(info);
    const Napi::Value result = indices(info.Env(), session_->optimizer.step(step.arrays, step.settings));
    account_memory(info.Env());
    return result;
  });
}

Napi::Value OptimizerWrap::step(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const auto step = std::make_shared<Step>(read_step(info));
    std::vector<Napi::Value> keep = std::move(step->values);
    keep.push_back(info.This());
    const auto non_finite = std::make_shared<std::vector<uint32_t>>();
    const Napi::Value promise = Task::start(
        info.Env(), keep,
        [=, session = session_] { *non_finite = session->optimizer.step(step->arrays, step->settings); },
        [=, session = session_](Napi::Env env, const Napi::Array& kept) {
          session->busy = false;
          account_memory(env);
          if (non_finite->empty()) require_attached(kept, step->spans);
          return indices(env, *non_finite);
        });
    session_->busy = true;
    return promise;
  });
}

Napi::Value OptimizerWrap::transfer(const Napi::CallbackInfo& info, void (Backend::*copy)(const std::vector<Arrays>&)) {
  return guard(info.Env(), [&] {
    const auto step = std::make_shared<Step>(read_data(info));
    std::vector<Napi::Value> keep = std::move(step->values);
    keep.push_back(info.This());
    const Napi::Value promise = Task::start(
        info.Env(), keep, [=, session = session_] { (session->optimizer.backend().*copy)(step->arrays); },
        [=, session = session_](Napi::Env env, const Napi::Array& kept) {
          session->busy = false;
          require_attached(kept, step->spans);
          return env.Undefined();
        });
    session_->busy = true;
    return promise;
  });
}

Napi::Value OptimizerWrap::read_parameters(const Napi::CallbackInfo& info) {
  return transfer(info, &Backend::read_held);
}

Napi::Value OptimizerWrap::write_parameters(const Napi::CallbackInfo& info) {
  return transfer(info, &Backend::write_held);
}

void OptimizerWrap::write_parameters_sync(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    const Step step = read_data(info);
    session_->optimizer.backend().write_held(step.arrays);
    return true;
  });
}

void OptimizerWrap::zero_gradients(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle_session().optimizer.backend().zero_held_gradients();
    return true;
  });
}

Napi::Value OptimizerWrap::device_memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Backend& backend = session().optimizer.backend();
    const size_t index = parameter_index(info[0]);
    if (backend.shares_host_memory()) throw Error("ERR_DEVICE_UNAVAILABLE", "The CPU has no memory of its own");
    const Arrays arrays = backend.held({})[index];
    const auto address = [&](const void* pointer) {
      return Napi::BigInt::New(env, uint64_t(reinterpret_cast<uintptr_t>(pointer)));
    };
    const Napi::Object memory = Napi::Object::New(env);
    memory.Set("data", address(arrays.data));
    memory.Set("grad", address(arrays.gradient));
    memory.Set("stream", address(backend.stream()));
    return memory;
  });
}

size_t OptimizerWrap::parameter_index(const Napi::Value& value) const {
  const int64_t index = integer(value, "index", 0);
  if (size_t(index) >= session_->optimizer.parameters().size()) reject("index", "that of a parameter");
  return size_t(index);
}

Napi::Value OptimizerWrap::state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Optimizer& optimizer = idle_session().optimizer;
    const size_t index = parameter_index(info[0]);
    const ParameterLayout& layout = optimizer.parameters()[index];
    Napi::Float32Array first = Napi::Float32Array::New(env, size_t(layout.size));
    const Napi::Object state = Napi::Object::New(env);
    if (layout.matrices.empty()) {
      Napi::Float32Array second = Napi::Float32Array::New(env, size_t(layout.size));
      optimizer.read_state(index, first.Data(), second.Data());
      state.Set("expAvg", first);
      state.Set("expAvgSq", second);
    } else {
      optimizer.read_state(index, first.Data(), nullptr);
      const std::vector<double> values = optimizer.thresholds(index);
      Napi::Float64Array thresholds = Napi::Float64Array::New(env, values.size());
      std::copy(values.begin(), values.end(), thresholds.Data());
      state.Set("momentumBuffer", first);
      state.Set("thresholds", thresholds);
    }
    return state;
  });
}

Napi::Value OptimizerWrap::set_state(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    idle_session();
    const size_t index = parameter_index(info[0]);
    const Napi::Object state = object(info[1], "state");
    const bool adamw = session_->optimizer.parameters()[index].matrices.empty();
    const Napi::Value first_value = state.Get(adamw ? "expAvg" : "momentumBuffer");
    const Napi::Value second_value = state.Get(adamw ? "expAvgSq" : "thresholds");

    Optimizer& optimizer = idle_session().optimizer;  // once more: a getter may have run
    const ParameterLayout& layout = optimizer.parameters()[index];
    const Span<float> first = floats(first_value, adamw ? "expAvg" : "momentumBuffer", size_t(layout.size));
    if (adamw) {
      const Span<float> second = floats(second_value, "expAvgSq", size_t(layout.size));
      optimizer.write_state(index, first.data, second.data);
    } else {
      const Span<double> thresholds = doubles(second_value, "thresholds");
      if (thresholds.size != layout.matrices.size()) reject("thresholds", "one for each matrix");
      optimizer.write_state(index, first.data, nullptr);
      optimizer.set_thresholds(index, {thresholds.data, thresholds.data + thresholds.size});
    }
    return info.Env().Undefined();
  });
}

}  // namespace root_optimizer
