#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../settings.h"

namespace root_optimizer::wrap {

// Readers of JavaScript values. Each throws ERR_INVALID_ARGUMENT with `what` in its message.

double number(const Napi::Value& value, const std::string& what);
double finite_number(const Napi::Value& value, const std::string& what);
/// An integer of at least `least` and at most 2⁵³, where a double still tells integers apart.
int64_t integer(const Napi::Value& value, const std::string& what, double least);
std::string text(const Napi::Value& value, const std::string& what);
bool boolean(const Napi::Value& value, const std::string& what);
Napi::Object object(const Napi::Value& value, const std::string& what);
Napi::Array list(const Napi::Value& value, const std::string& what);

/// The memory of a typed array as it is now: whenever a script runs, it may detach the array.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;

  bool operator==(const Span&) const = default;
};

Span<float> floats(const Napi::Value& value, const std::string& what);
/// Throws ERR_SHAPE_MISMATCH if the array has another size.
Span<float> floats(const Napi::Value& value, const std::string& what, size_t size);
Span<double> doubles(const Napi::Value& value, const std::string& what);
/// Throws ERR_DETACHED unless the first arrays of `kept` are still the spans that they were when work on them began.
void require_attached(const Napi::Array& kept, const std::vector<Span<float>>& spans);

/// The matrices come in order and without gaps, so that no element is updated twice or left out.
std::vector<MatrixLayout> matrix_layouts(const Napi::Value& value, int64_t size);
std::vector<ParameterLayout> parameter_layouts(const Napi::Value& value);
std::vector<Coefficients> coefficient_list(const Napi::Value& value);
Precision precision_of(const Napi::Value& value);
/// A step's settings for a parameter of that layout.
Settings settings_of(const Napi::Object& entry, const ParameterLayout& layout);

}  // namespace root_optimizer::wrap
