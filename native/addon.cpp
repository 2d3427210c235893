#include "wrap/functions.h"
#include "wrap/optimizer.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("Optimizer", root_optimizer::OptimizerWrap::define(env));
  root_optimizer::define_functions(env, exports);
  return exports;
}

NODE_API_MODULE(root_optimizer, init)
