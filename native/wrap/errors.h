#pragma once

#include <napi.h>

#include <new>
#include <stdexcept>
#include <string>

#include "../error.h"

namespace root_optimizer::wrap {

/// Turns what the layers below throw into a JavaScript error with its `code`.
inline Napi::Error to_javascript(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

/// The code and message of an exception on its way out of C++. Without a code there was no exception.
struct Failure {
  const char* code = nullptr;
  std::string message;

  template <typename Body>
  static Failure of(Body&& body) {
    try {
      body();
      return {};
    } catch (const Error& error) {
      return {.code = error.code(), .message = error.what()};
    } catch (const std::bad_alloc&) {
      return {.code = "ERR_OUT_OF_MEMORY", .message = "Not enough memory"};
    } catch (const std::length_error&) {
      return {.code = "ERR_OUT_OF_MEMORY", .message = "More elements than memory can hold"};
    } catch (const Napi::Error&) {
      throw;  // a script's own exception, which goes back to it
    } catch (const std::exception& error) {
      return {.code = "ERR_INVALID_ARGUMENT", .message = error.what()};
    }
  }
};

/// Runs the body of an exported function.
template <typename Body>
auto guard(Napi::Env env, Body&& body) {
  decltype(body()) result{};
  const Failure failure = Failure::of([&] { result = body(); });
  if (failure.code != nullptr) throw to_javascript(env, failure.code, failure.message);
  return result;
}

[[noreturn]] inline void reject(const std::string& what, const char* expected) {
  throw Error("ERR_INVALID_ARGUMENT", "Expected " + what + " to be " + expected);
}

}  // namespace root_optimizer::wrap
