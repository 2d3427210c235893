#pragma once

#include <napi.h>

#include <functional>
#include <utility>
#include <vector>

#include "errors.h"

namespace root_optimizer::wrap {

/// Work off the event loop, the promise that it settles, and the JavaScript values that it keeps alive. `execute` runs
/// on a worker thread. `settle` runs afterwards on the event loop with the values kept, whether or not `execute` threw,
/// and returns the value that the promise resolves with.
class Task final : public Napi::AsyncWorker {
 public:
  using Settle = std::function<Napi::Value(Napi::Env, const Napi::Array& kept)>;

  static Napi::Value start(Napi::Env env, const std::vector<Napi::Value>& keep, std::function<void()> execute,
                           Settle settle) {
    Task* task = new Task(env, keep, std::move(execute), std::move(settle));  // deletes itself when it has settled
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 protected:
  void Execute() override { failure_ = Failure::of(execute_); }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    Napi::Value result;
    const Failure late = Failure::of([&] { result = settle_(Env(), kept_.Value().As<Napi::Array>()); });
    const Failure& failure = failure_.code != nullptr ? failure_ : late;
    if (failure.code == nullptr) {
      deferred_.Resolve(result);
    } else {
      deferred_.Reject(to_javascript(Env(), failure.code, failure.message).Value());
    }
  }

 private:
  Task(Napi::Env env, const std::vector<Napi::Value>& keep, std::function<void()> execute, Settle settle)
      : AsyncWorker(env, "root-optimizer"),
        deferred_(Napi::Promise::Deferred::New(env)),
        execute_(std::move(execute)),
        settle_(std::move(settle)) {
    Napi::Array kept = Napi::Array::New(env, keep.size());
    for (uint32_t i = 0; i < keep.size(); ++i) kept.Set(i, keep[i]);
    kept_ = Napi::Persistent(kept.As<Napi::Object>());
  }

  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference kept_;
  std::function<void()> execute_;
  Settle settle_;
  Failure failure_;
};

}  // namespace root_optimizer::wrap
