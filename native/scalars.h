#pragma once

#include <cstddef>
#include <vector>

#include "owned.h"
#include "settings.h"

namespace root_optimizer {

/// The numbers of a step in a backend's memory, parameter by parameter, and the flags of its checks.
class Scalars {
 public:
  Scalars(Backend& backend, const std::vector<ParameterLayout>& parameters);

  /// Throws ERR_INVALID_ARGUMENT if a product of settings leaves float32's range.
  void write(const std::vector<Settings>& settings);

  const MatrixScalars* matrices_of(size_t parameter) const { return matrices_.data() + first_[parameter]; }
  const AdamWScalars* adamw_of(size_t parameter) const { return adamw_.data() + first_[parameter]; }
  uint32_t* flags() const { return flags_.data(); }

 private:
  Owned<MatrixScalars> matrices_;
  Owned<AdamWScalars> adamw_;
  Owned<uint32_t> flags_;
  std::vector<size_t> first_;  // each parameter's place in its list
};

}  // namespace root_optimizer
