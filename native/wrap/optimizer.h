#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <vector>

#include "../optimizer.h"

namespace root_optimizer::wrap {

/// The class `Optimizer` of binding.d.ts.
class OptimizerWrap final : public Napi::ObjectWrap<OptimizerWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  /// The optimizer that such an object wraps. Throws ERR_INVALID_ARGUMENT for other values, ERR_BUSY and ERR_DISPOSED.
  static Optimizer& idle(const Napi::Value& value);

  explicit OptimizerWrap(const Napi::CallbackInfo& info);
  ~OptimizerWrap() override;

 private:
  /// Shared with a running step, which may outlive `dispose`.
  struct Session {
    Optimizer optimizer;
    bool busy = false;
  };
  struct Call;
  struct Piece;

  Napi::Value memory_bytes(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value step_sync(const Napi::CallbackInfo& info);
  Napi::Value read_parameters(const Napi::CallbackInfo& info);
  Napi::Value write_parameters(const Napi::CallbackInfo& info);
  void write_parameters_sync(const Napi::CallbackInfo& info);
  void zero_gradients(const Napi::CallbackInfo& info);
  Napi::Value device_memory(const Napi::CallbackInfo& info);
  Napi::Value read_state(const Napi::CallbackInfo& info);
  Napi::Value write_state(const Napi::CallbackInfo& info);
  Napi::Value found(const Napi::CallbackInfo& info);
  Napi::Value set_found(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Session> session() const;
  Optimizer& idle_optimizer() const;
  Call read_step(const Napi::CallbackInfo& info) const;
  Call read_data(const Napi::CallbackInfo& info) const;
  Piece read_piece(const Napi::CallbackInfo& info) const;
  Napi::Value start(const Napi::CallbackInfo& info, Call call, std::function<void(Optimizer&, Call&)> work);
  void account_memory(Napi::Env env);

  std::shared_ptr<Session> session_;
  int64_t external_bytes_ = 0;
};

}  // namespace root_optimizer::wrap
