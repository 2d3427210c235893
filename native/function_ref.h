#pragma once

#include <type_traits>
#include <utility>

namespace root_optimizer {

template <typename Signature>
class FunctionRef;

/// A callable that the caller owns for as long as a call lasts. Unlike std::function it never allocates, so that work
/// that has begun cannot fail for lack of memory.
template <typename Result, typename... Arguments>
class FunctionRef<Result(Arguments...)> {
 public:
  template <typename Callable, typename = std::enable_if_t<!std::is_same_v<std::decay_t<Callable>, FunctionRef>>>
  FunctionRef(const Callable& callable)
      : callable_(&callable), call_([](const void* erased, Arguments... arguments) -> Result {
          return (*static_cast<const Callable*>(erased))(std::forward<Arguments>(arguments)...);
        }) {}

  Result operator()(Arguments... arguments) const { return call_(callable_, std::forward<Arguments>(arguments)...); }

 private:
  const void* callable_;
  Result (*call_)(const void*, Arguments...);
};

}  // namespace root_optimizer
