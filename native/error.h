#pragma once

#include <stdexcept>
#include <string>

namespace root_optimizer {

/// What every layer below the bridge throws; `code` is one of binding.d.ts' NativeErrorCode.
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

}  // namespace root_optimizer
