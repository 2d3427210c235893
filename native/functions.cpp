#include "functions.h"

#include "error.h"
#include "jobs.h"

namespace root_optimizer {

namespace {

// Memory in which jobs find an array of the host's, and from which they hand one back.
class Mirror {
 public:
  Mirror(Backend& backend, size_t size)
      : memory_(backend, backend.shares_host_memory() ? 0 : size), shared_(backend.shares_host_memory()) {}

  float* at(float* host) const { return shared_ ? host : memory_.data(); }
  float* sent(const float* host) {
    if (!shared_) memory_.write(host);
    return at(const_cast<float*>(host));
  }
  void fetch(float* host) const {
    if (!shared_) memory_.read(host);
  }

 private:
  Owned<float> memory_;
  bool shared_;
};

// U = the array itself.
Item plain_item(float* input, float* output, double* threshold, const MatrixScalars* scalars, uint32_t* flag,
                Clip* clip) {
  return {output, nullptr, input, threshold, scalars, flag, clip};
}

void run_checks(Backend& backend, const std::vector<Job>& checks, const Owned<uint32_t>& flag) {
  backend.run(checks);
  if (flag.values()[0] != 0) throw Error("ERR_NON_FINITE", "Expected finite values, got NaN or an infinity");
}

}  // namespace

void orthogonalize(Backend& backend, const float* input, float* output, const std::vector<MatrixLayout>& matrices,
                   const std::vector<std::vector<Coefficients>>& coefficients) {
  const size_t size = size_t(matrices.back().offset + matrices.back().rows * matrices.back().columns);
  Mirror from(backend, size);
  Mirror to(backend, size);
  Owned<uint32_t> flag(backend, 1);
  Owned<MatrixScalars> scalars(backend, 1);
  Owned<Clip> clips(backend, matrices.size());
  const MatrixScalars overwrite{0, 0, 0, 0, 1};
  scalars.write(&overwrite);
  float* const source = from.sent(input);
  float* const target = to.at(output);

  std::vector<Member> members;
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MatrixLayout& m = matrices[i];
    const Item item =
        plain_item(source + m.offset, target + m.offset, nullptr, scalars.data(), flag.data(), clips.data() + i);
    members.push_back({item, m.rows, m.columns, false, &coefficients[i], 0});
  }
  std::vector<Job> checks;
  std::vector<Job> jobs;
  for (const Group& group : grouped(backend, members)) {
    checks.push_back(check_job(group.batch, group.flops()));
    jobs.push_back({group.flops(), group.footprint(), {}, [group](Queue& queue) {
                      const Operand x = newton_schulz(queue, group.batch, queue.proximal(group.batch), group.schedule);
                      queue.update(group.batch, x);
                    }});
  }
  run_checks(backend, checks, flag);
  backend.run(jobs);
  to.fetch(output);
}

double soft_threshold(Backend& backend, const float* input, float* base, float* outliers, int64_t size,
                      Threshold threshold) {
  Mirror from(backend, size_t(size));
  Mirror kept(backend, size_t(size));
  Mirror rest(backend, size_t(size));
  Owned<uint32_t> flag(backend, 1);
  Owned<double> epsilon(backend, 1);
  Owned<MatrixScalars> scalars(backend, 1);
  const MatrixScalars numbers{threshold.quantile, threshold.scale, 0, 1, 0};
  scalars.write(&numbers);
  const Item item = plain_item(from.sent(input), nullptr, epsilon.data(), scalars.data(), flag.data(), nullptr);
  const Batch batch{size, 1, false, {item}};
  const double cost = kElementCost * double(size);
  run_checks(backend, {check_job(batch, cost)}, flag);
  float* const base_there = kept.at(base);
  float* const outliers_there = rest.at(outliers);
  backend.run({{cost, {size, 1, 0, 0, true, 1}, {}, [=](Queue& queue) {
                  queue.threshold(batch);
                  queue.soft_threshold(batch, base_there, outliers_there);
                }}});
  kept.fetch(base);
  rest.fetch(outliers);
  return epsilon.values()[0];
}

}  // namespace root_optimizer
