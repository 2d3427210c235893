#include "functions.h"

#include <cstring>

#include <functional>

#include "error.h"
#include "optimizer.h"

namespace root_optimizer {

namespace {

// Returns where jobs find the host's arrays. Copies the function's input, which is the gradient of the first of them.
std::vector<Arrays> place(Backend& backend, const std::vector<Arrays>& host, int64_t size) {
  const ParameterStore* store = backend.make_store(std::vector<int64_t>(host.size(), size), 1);
  const std::vector<Arrays> places = placed(store, host);
  backend.write(places[0].gradient, host[0].gradient, size_t(size) * sizeof(float));
  return places;
}

void require_finite(const std::vector<uint32_t>& flags) {
  if (flags[0] != 0) throw Error("ERR_NON_FINITE", "Expected finite values, got NaN or an infinity");
}

}  // namespace

// Runs a step whose momentum is the input and whose update overwrites the output: θ ← 0·θ + 1·X.
void orthogonalize(Backend& backend, const float* input, float* output, const std::vector<MatrixLayout>& matrices,
                   const std::vector<std::vector<Coefficients>>& coefficients) {
  const int64_t size = matrices.back().offset + matrices.back().rows * matrices.back().columns;
  const Arrays at = place(backend, {{.data = output, .gradient = const_cast<float*>(input)}}, size)[0];
  const Owned<uint32_t> flag(backend, 1);
  Owned<MatrixScalars> scalars(backend, 1);
  const MatrixScalars overwrite{.decay = 0, .rate = 1};
  scalars.write(&overwrite);

  std::vector<Member> members;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MatrixLayout& m = matrices[i];
    members.push_back({.matrix = {.data = at.data + m.offset,
                                  .momentum = at.gradient + m.offset,
                                  .scalars = scalars.data(),
                                  .flag = flag.data()},
                       .kind = {.rows = m.rows, .columns = m.columns, .matrices = {}},
                       .coefficients = &coefficients[i]});
  }
  Plan plan = make_plan(backend, std::move(members), {}, false);
  plan.flags = flag.data();
  plan.parameters = 1;
  require_finite(backend.run(plan));
  backend.read(output, at.data, size_t(size) * sizeof(float));
}

double soft_threshold(Backend& backend, const float* input, float* base, float* outliers, int64_t size,
                      Threshold threshold) {
  const std::vector<Arrays> at =
      place(backend, {{.data = base, .gradient = const_cast<float*>(input)}, {.data = outliers}}, size);
  const Owned<uint32_t> flag(backend, 1);
  const Owned<Thresholds> found(backend, 1);
  Owned<MatrixScalars> scalars(backend, 1);
  const MatrixScalars numbers{.quantile = threshold.quantile, .scale = threshold.scale};
  scalars.write(&numbers);

  const Matrix matrix{
      .momentum = at[0].gradient, .thresholds = found.data(), .scalars = scalars.data(), .flag = flag.data()};
  const Batch checked{.rows = size, .columns = 1, .matrices = {matrix}};
  const Batch split{.rows = size, .columns = 1, .clips = true, .matrices = {matrix}};
  const auto job = [&](std::function<void(Queue&)> enqueue) {
    return Job{.cost = pass_cost(size),
               .footprints = {{.long_side = size, .short_side = 1, .selects = true}},
               .parameters = {},
               .enqueue = std::move(enqueue)};
  };
  Plan plan;
  plan.flags = flag.data();
  plan.parameters = 1;
  plan.notes = 1;
  plan.checks = {job([&](Queue& queue) { queue.check({&checked, 1}, {}); })};
  plan.updates = {job([&](Queue& queue) {
    queue.threshold({&split, 1});
    queue.soft_threshold(split, at[0].data, at[1].data);
  })};
  require_finite(backend.run(plan));
  backend.read(base, at[0].data, size_t(size) * sizeof(float));
  backend.read(outliers, at[1].data, size_t(size) * sizeof(float));
  return found.values()[0].threshold;
}

// Works on the bits, since compilers vectorize that on every processor. All bits of the exponent are set in infinities
// and NaN, and adding to them carries into the sign.
bool are_finite(const float* values, size_t count, bool non_negative) {
  uint32_t found = 0;
  uint32_t negative = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    const uint32_t magnitude = bits & 0x7fffffff;
    found |= magnitude + 0x00800000;
    negative |= magnitude == 0 ? 0 : bits;
  }
  return ((found | (non_negative ? negative : 0)) >> 31) == 0;
}

}  // namespace root_optimizer
