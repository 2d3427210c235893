#pragma once

#include <memory>
#include <vector>

#include "readers.h"

namespace root_optimizer {

/// The class `Optimizer` of binding.d.ts.
class OptimizerWrap final : public Napi::ObjectWrap<OptimizerWrap> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit OptimizerWrap(const Napi::CallbackInfo& info);
  ~OptimizerWrap() override;

 private:
  /// Shared with a running step, which may outlive `dispose`.
  struct Session {
    Optimizer optimizer;
    bool busy = false;

    Session(std::unique_ptr<Backend> backend, std::vector<ParameterLayout> parameters, bool profiled)
        : optimizer(std::move(backend), std::move(parameters), profiled) {}
  };
  struct Step;

  Napi::Value threads(const Napi::CallbackInfo& info);
  Napi::Value memory_bytes(const Napi::CallbackInfo& info);
  Napi::Value step_times(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value step_sync(const Napi::CallbackInfo& info);
  Napi::Value read_parameters(const Napi::CallbackInfo& info);
  Napi::Value write_parameters(const Napi::CallbackInfo& info);
  void write_parameters_sync(const Napi::CallbackInfo& info);
  void zero_gradients(const Napi::CallbackInfo& info);
  Napi::Value device_memory(const Napi::CallbackInfo& info);
  Napi::Value state(const Napi::CallbackInfo& info);
  Napi::Value set_state(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  Session& session() const;
  Session& idle_session() const;
  size_t parameter_index(const Napi::Value& value) const;
  Step read_step(const Napi::CallbackInfo& info) const;
  Step read_data(const Napi::CallbackInfo& info) const;
  Napi::Value transfer(const Napi::CallbackInfo& info, void (Backend::*copy)(const std::vector<Arrays>&));
  void account_memory(Napi::Env env);

  std::shared_ptr<Session> session_;
  int64_t external_bytes_ = 0;
};

}  // namespace root_optimizer
