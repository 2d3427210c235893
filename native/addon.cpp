#include "wrap/exports.h"
#include "wrap/optimizer.h"

using Napi::Function;
using namespace root_optimizer;

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  wrap::prepare_functions(env);
  exports.Set("Optimizer", wrap::OptimizerWrap::define(env));
  exports.Set("devices", Function::New<wrap::devices>(env, "devices"));
  exports.Set("deviceObstacle", Function::New<wrap::device_obstacle>(env, "deviceObstacle"));
  exports.Set("orthogonalize", Function::New<wrap::orthogonalize>(env, "orthogonalize"));
  exports.Set("orthogonalizeSync", Function::New<wrap::orthogonalize_sync>(env, "orthogonalizeSync"));
  exports.Set("softThreshold", Function::New<wrap::soft_threshold>(env, "softThreshold"));
  exports.Set("softThresholdSync", Function::New<wrap::soft_threshold_sync>(env, "softThresholdSync"));
  exports.Set("areFinite", Function::New<wrap::are_finite>(env, "areFinite"));
  // For benchmarks and tests.
  exports.Set("newtonSchulzPlan", Function::New<wrap::newton_schulz_plan>(env, "newtonSchulzPlan"));
  exports.Set("cpuPeak", Function::New<wrap::cpu_peak>(env, "cpuPeak"));
  exports.Set("profile", Function::New<wrap::profile>(env, "profile"));
  exports.Set("stepTimes", Function::New<wrap::step_times>(env, "stepTimes"));
  return exports;
}

NODE_API_MODULE(root_optimizer, init)
