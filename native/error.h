#pragma once

#include <stdexcept>
#include <string>

namespace root_optimizer {

/// The exception that every layer below native/wrap throws. `code` is one of binding.d.ts's NativeErrorCode.
class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

}  // namespace root_optimizer
