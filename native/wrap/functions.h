#pragma once

#include <napi.h>

namespace root_optimizer {

/// Adds the functions of binding.d.ts to the exports.
void define_functions(Napi::Env env, Napi::Object exports);

}  // namespace root_optimizer
