#pragma once

#include <napi.h>

#include <cmath>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../error.h"
#include "../step.h"

namespace root_optimizer {

/// Turns what the layers below throw into a JavaScript error with its `code`.
inline Napi::Error to_javascript(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

/// The code and message of an exception on its way out of C++.
struct Failure {
  const char* code = nullptr;
  std::string message;

  template <typename Body>
  static Failure of(Body&& body) {
    try {
      body();
      return {};
    } catch (const Error& error) {
      return {error.code(), error.what()};
    } catch (const std::bad_alloc&) {
      return {"ERR_OUT_OF_MEMORY", "Not enough memory"};
    } catch (const std::length_error&) {
      return {"ERR_OUT_OF_MEMORY", "More elements than memory can hold"};
    } catch (const Napi::Error&) {
      throw;  // a script's own, on its way back to it
    } catch (const std::exception& error) {
      return {"ERR_INVALID_ARGUMENT", error.what()};
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

inline double number(const Napi::Value& value, const std::string& what) {
  if (!value.IsNumber()) reject(what, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

inline double finite_number(const Napi::Value& value, const std::string& what) {
  const double x = number(value, what);
  if (!std::isfinite(x)) reject(what, "finite");
  return x;
}

/// Up to 2⁵³, where a double still tells integers apart.
inline int64_t integer(const Napi::Value& value, const std::string& what, double least) {
  const double x = number(value, what);
  if (!(x >= least && x <= 9007199254740992.0) || x != std::floor(x)) reject(what, "an integer in range");
  return int64_t(x);
}

inline std::string text(const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) reject(what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

inline bool boolean(const Napi::Value& value, const std::string& what) {
  if (!value.IsBoolean()) reject(what, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

inline Napi::Object object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) reject(what, "an object");
  return value.As<Napi::Object>();
}

inline Napi::Array list(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) reject(what, "an array");
  return value.As<Napi::Array>();
}

/// A typed array's memory, as it is now: whenever a script runs it may detach it.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;

  bool operator==(const Span& other) const { return data == other.data && size == other.size; }
};

template <typename T, napi_typedarray_type kType>
Span<T> typed_array(const Napi::Value& value, const std::string& what, const char* expected) {
  napi_typedarray_type type;
  void* data;
  size_t size;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, &size, &data, nullptr, nullptr) != napi_ok || type != kType) {
    reject(what, expected);
  }
  return {static_cast<T*>(data), size};
}

inline Span<float> floats(const Napi::Value& value, const std::string& what) {
  return typed_array<float, napi_float32_array>(value, what, "a Float32Array");
}

inline Span<float> floats(const Napi::Value& value, const std::string& what, size_t size) {
  const Span<float> span = floats(value, what);
  if (span.size != size) {
    throw Error("ERR_SHAPE_MISMATCH",
                "Expected " + what + " to have length " + std::to_string(size) + ", got " + std::to_string(span.size));
  }
  return span;
}

/// Of the first arrays of `kept`, which were `spans` when the work on them began.
inline void require_attached(const Napi::Array& kept, const std::vector<Span<float>>& spans) {
  for (uint32_t i = 0; i < spans.size(); ++i) {
    if (!(floats(kept[i], "array") == spans[i])) {
      throw Error("ERR_DETACHED", "Expected arrays to stay attached while they are in use");
    }
  }
}

inline Span<double> doubles(const Napi::Value& value, const std::string& what) {
  return typed_array<double, napi_float64_array>(value, what, "a Float64Array");
}

/// In order and without gaps, so that no element is updated twice or left out.
inline std::vector<MatrixLayout> matrix_layouts(const Napi::Value& value, int64_t size) {
  const Napi::Array array = list(value, "matrices");
  std::vector<MatrixLayout> matrices;
  int64_t end = 0;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object entry = object(array[i], "matrices[i]");
    const MatrixLayout matrix{integer(entry.Get("offset"), "offset", 0), integer(entry.Get("rows"), "rows", 1),
                              integer(entry.Get("columns"), "columns", 1)};
    if (matrix.offset != end || matrix.rows > size / matrix.columns)
      reject("matrices", "adjacent and within the array");
    end += matrix.rows * matrix.columns;
    matrices.push_back(matrix);
  }
  if (!matrices.empty() && end != size) reject("matrices", "a cover of the array");
  return matrices;
}

inline std::vector<Coefficients> coefficient_list(const Napi::Value& value) {
  const Span<double> numbers = doubles(value, "coefficients");
  if (numbers.size == 0 || numbers.size % 3 != 0) reject("coefficients", "triples");
  std::vector<Coefficients> coefficients;
  for (size_t i = 0; i < numbers.size; i += 3) {
    coefficients.push_back({numbers.data[i], numbers.data[i + 1], numbers.data[i + 2]});
  }
  return coefficients;
}

inline Precision precision_of(const Napi::Value& value) {
  const std::string name = text(value, "precision");
  if (name == "float16") return Precision::float16;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "float32") return Precision::float32;
  reject("precision", "'float16', 'bfloat16' or 'float32'");
}

/// The N of 'cuda:N', or −1.
inline int cuda_index(const std::string& device) {
  const bool named = device.rfind("cuda:", 0) == 0 && device.size() > 5 && device.size() < 9 &&
                     device.find_first_not_of("0123456789", 5) == std::string::npos;
  return named ? std::stoi(device.substr(5)) : -1;
}

/// A backend that is asked for, and not made yet: that takes a while on a GPU.
struct BackendChoice {
  int cuda;  ///< −1: the CPU
  int threads;
  Precision precision;

  BackendChoice(const Napi::Value& device, const Napi::Value& threads_value, Precision asked) : precision(asked) {
    const std::string name = text(device, "device");
    const int64_t count = integer(threads_value, "threads", 0);
    if (count > 1024) reject("threads", "at most 1024");
    threads = int(count);
    cuda = cuda_index(name);
    if (cuda < 0 && name != "cpu") reject("device", "'cpu' or 'cuda:N'");
  }

  std::unique_ptr<Backend> make() const {
    return cuda < 0 ? make_cpu_backend(threads, precision) : make_cuda_backend(cuda, precision);
  }
};

/// Work off the event loop, with the promise that it settles and the JavaScript values that it keeps alive.
/// `execute` runs on a worker thread; `settle` afterwards on the event loop, whether or not it threw, with the values
/// kept, and gives what the promise resolves with.
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

}  // namespace root_optimizer
