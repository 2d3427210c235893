#include "readers.h"

#include <cmath>

#include "errors.h"

namespace root_optimizer::wrap {

double number(const Napi::Value& value, const std::string& what) {
  if (!value.IsNumber()) reject(what, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

double finite_number(const Napi::Value& value, const std::string& what) {
  const double x = number(value, what);
  if (!std::isfinite(x)) reject(what, "finite");
  return x;
}

int64_t integer(const Napi::Value& value, const std::string& what, double least) {
  const double x = number(value, what);
  if (!(x >= least && x <= 9007199254740992.0) || x != std::floor(x)) reject(what, "an integer in range");
  return int64_t(x);
}

std::string text(const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) reject(what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

bool boolean(const Napi::Value& value, const std::string& what) {
  if (!value.IsBoolean()) reject(what, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

Napi::Object object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) reject(what, "an object");
  return value.As<Napi::Object>();
}

Napi::Array list(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) reject(what, "an array");
  return value.As<Napi::Array>();
}

template <typename T, napi_typedarray_type kType>
static Span<T> typed_array(const Napi::Value& value, const std::string& what, const char* expected) {
  napi_typedarray_type type;
  void* data;
  size_t size;
  if (!value.IsTypedArray() ||
      napi_get_typedarray_info(value.Env(), value, &type, &size, &data, nullptr, nullptr) != napi_ok || type != kType) {
    reject(what, expected);
  }
  return {.data = static_cast<T*>(data), .size = size};
}

Span<float> floats(const Napi::Value& value, const std::string& what) {
  return typed_array<float, napi_float32_array>(value, what, "a Float32Array");
}

Span<float> floats(const Napi::Value& value, const std::string& what, size_t size) {
  const Span<float> span = floats(value, what);
  if (span.size != size) {
    throw Error("ERR_SHAPE_MISMATCH",
                "Expected " + what + " to have length " + std::to_string(size) + ", got " + std::to_string(span.size));
  }
  return span;
}

Span<double> doubles(const Napi::Value& value, const std::string& what) {
  return typed_array<double, napi_float64_array>(value, what, "a Float64Array");
}

void require_attached(const Napi::Array& kept, const std::vector<Span<float>>& spans) {
  for (uint32_t i = 0; i < spans.size(); ++i) {
    if (!(floats(kept[i], "array") == spans[i])) {
      throw Error("ERR_DETACHED", "Expected arrays to stay attached while they are in use");
    }
  }
}

// What may be left out is false.
static bool truth(const Napi::Value& value, const std::string& what) {
  return !value.IsUndefined() && boolean(value, what);
}

std::vector<MatrixLayout> matrix_layouts(const Napi::Value& value, int64_t size) {
  const Napi::Array array = list(value, "matrices");
  std::vector<MatrixLayout> matrices;
  int64_t end = 0;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object entry = object(array[i], "matrices[i]");
    const MatrixLayout matrix{.offset = integer(entry.Get("offset"), "offset", 0),
                              .rows = integer(entry.Get("rows"), "rows", 1),
                              .columns = integer(entry.Get("columns"), "columns", 1),
                              .in_out = truth(entry.Get("inOut"), "inOut")};
    if (matrix.offset != end || matrix.rows > size / matrix.columns) {
      reject("matrices", "adjacent and within the array");
    }
    end += matrix.rows * matrix.columns;
    matrices.push_back(matrix);
  }
  if (!matrices.empty() && end != size) reject("matrices", "a cover of the array");
  return matrices;
}

std::vector<ParameterLayout> parameter_layouts(const Napi::Value& value) {
  const Napi::Array array = list(value, "parameters");
  std::vector<ParameterLayout> layouts;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object entry = object(array[i], "parameters[i]");
    const int64_t size = integer(entry.Get("size"), "size", 1);
    layouts.push_back({.size = size, .matrices = matrix_layouts(entry.Get("matrices"), size)});
  }
  return layouts;
}

std::vector<Coefficients> coefficient_list(const Napi::Value& value) {
  const Span<double> numbers = doubles(value, "coefficients");
  if (numbers.size == 0 || numbers.size % 3 != 0) reject("coefficients", "triples");
  std::vector<Coefficients> coefficients;
  for (size_t i = 0; i < numbers.size; i += 3) {
    coefficients.push_back({.a = numbers.data[i], .b = numbers.data[i + 1], .c = numbers.data[i + 2]});
  }
  return coefficients;
}

Precision precision_of(const Napi::Value& value) {
  const std::string name = text(value, "precision");
  if (name == "float16") return Precision::float16;
  if (name == "bfloat16") return Precision::bfloat16;
  if (name == "bfloat16x3") return Precision::bfloat16x3;
  if (name == "float32") return Precision::float32;
  reject("precision", "'float16', 'bfloat16', 'bfloat16x3' or 'float32'");
}

static double fraction(const Napi::Value& value, const char* what) {
  const double x = finite_number(value, what);
  if (x < 0 || x > 1) reject(what, "in [0, 1]");
  return x;
}

// What may be null is absent then.
static std::optional<Napi::Object> optional_object(const Napi::Object& entry, const char* what) {
  const Napi::Value value = entry.Get(what);
  if (value.IsNull()) return std::nullopt;
  return object(value, what);
}

static std::optional<GradientThreshold> gradient_threshold(const Napi::Object& entry) {
  const std::optional<Napi::Object> given = optional_object(entry, "gradientThreshold");
  if (!given) return std::nullopt;
  const Napi::Value growth = given->Get("growth");
  return GradientThreshold{.quantile = fraction(given->Get("quantile"), "quantile"),
                           .scale = finite_number(given->Get("scale"), "scale"),
                           .growth = growth.IsNull() ? HUGE_VAL : finite_number(growth, "growth")};
}

static OrthogonalSettings orthogonal_settings(const Napi::Object& entry, size_t matrices) {
  OrthogonalSettings settings;
  settings.lr = finite_number(entry.Get("lr"), "lr");
  settings.momentum = finite_number(entry.Get("momentum"), "momentum");
  settings.weight_decay = finite_number(entry.Get("weightDecay"), "weightDecay");
  settings.nesterov = boolean(entry.Get("nesterov"), "nesterov");
  settings.cautious = boolean(entry.Get("cautious"), "cautious");
  settings.gradient_threshold = gradient_threshold(entry);
  if (const std::optional<Napi::Object> threshold = optional_object(entry, "threshold")) {
    settings.threshold = {.quantile = fraction(threshold->Get("quantile"), "quantile"),
                          .scale = finite_number(threshold->Get("scale"), "scale")};
  }
  if (const std::optional<Napi::Object> normalize = optional_object(entry, "normalize")) {
    settings.normalize = fraction(normalize->Get("beta2"), "beta2");
  }
  const Napi::Array array = list(entry.Get("matrices"), "matrices");
  if (array.Length() != matrices) reject("matrices", "one for each matrix of the parameter");
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object matrix = object(array[i], "matrices[i]");
    settings.matrices.push_back({.update_scale = finite_number(matrix.Get("updateScale"), "updateScale"),
                                 .coefficients = coefficient_list(matrix.Get("coefficients"))});
  }
  return settings;
}

static AdamWSettings adamw_settings(const Napi::Object& entry) {
  return {.lr = finite_number(entry.Get("lr"), "lr"),
          .beta1 = finite_number(entry.Get("beta1"), "beta1"),
          .beta2 = finite_number(entry.Get("beta2"), "beta2"),
          .eps = finite_number(entry.Get("eps"), "eps"),
          .weight_decay = finite_number(entry.Get("weightDecay"), "weightDecay"),
          .cautious = boolean(entry.Get("cautious"), "cautious"),
          .gradient_threshold = gradient_threshold(entry),
          .step = integer(entry.Get("step"), "step", 1)};
}

Settings settings_of(const Napi::Object& entry, const ParameterLayout& layout) {
  if (layout.matrices.empty()) return adamw_settings(entry);
  return orthogonal_settings(entry, layout.matrices.size());
}

}  // namespace root_optimizer::wrap
