#pragma once

#include <mutex>

#include "backend.h"

namespace root_optimizer {

/// The seconds that the parts of a step took, added up over all of its jobs. Jobs that run side by side add up to more
/// than the time that went by.
struct StepTimes {
  double checks = 0;
  double proximal = 0;  ///< momentum included
  double products = 0;
  double updates = 0;
};

/// Adds up what the verbs of jobs take. For backends whose verbs run at once, as the CPU's do.
class Profile {
 public:
  void clear();
  StepTimes times() const;
  /// The same job, with its verbs timed.
  Job timed(Job job);

 private:
  mutable std::mutex mutex_;
  StepTimes times_;
};

}  // namespace root_optimizer
