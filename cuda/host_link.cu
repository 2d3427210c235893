#include "host_link.h"

#include <algorithm>
#include <cstring>

#include "../native/devices.h"

namespace root_optimizer::cuda {

namespace {

constexpr int64_t kAlignment = 64;           // floats between the beginnings of parameters
constexpr int64_t kSlot = int64_t(4) << 20;  // floats
constexpr size_t kSlots = 2;
constexpr int64_t kCopied = int64_t(1) << 18;  // floats that a thread copies at a time
constexpr int kMostThreads = 8;                // more share the same memory bandwidth

}  // namespace

HostLink::HostLink(cudaMemPool_t pool, const std::vector<int64_t>& sizes, size_t gradients, cudaStream_t stream)
    : sizes_(sizes), gradient_count_(gradients) {
  for (size_t p = 0; p < sizes.size(); ++p) {
    offsets_.push_back(size_);
    size_ += (sizes[p] + kAlignment - 1) / kAlignment * kAlignment;
    if (p < gradients) gradient_size_ = size_;
  }
  data_ = static_cast<float*>(allocate_zeroed_from(pool, size_t(size_) * sizeof(float), "parameters", stream));
  try {
    const size_t bytes = size_t(gradient_size_) * sizeof(float);
    gradients_ = static_cast<float*>(allocate_zeroed_from(pool, bytes, "gradients", stream));
  } catch (...) {
    release(stream);
    throw;
  }
}

std::vector<Arrays> HostLink::arrays() const {
  std::vector<Arrays> arrays;
  for (const int64_t offset : offsets_) {
    arrays.push_back({.data = data_ + offset, .gradient = offset < gradient_size_ ? gradients_ + offset : nullptr});
  }
  return arrays;
}

void HostLink::release(cudaStream_t stream) noexcept {
  // A failure may have left copies behind.
  for (const Stream* copies : {&in_, &out_}) {
    if (copies->get() != nullptr) cudaStreamSynchronize(copies->get());
  }
  if (data_ != nullptr) cudaFreeAsync(data_, stream);
  if (gradients_ != nullptr) cudaFreeAsync(gradients_, stream);
  data_ = nullptr;
  gradients_ = nullptr;
}

void HostLink::prepare() {
  if (in_.get() == nullptr) in_ = make_stream();
  if (out_.get() == nullptr) out_ = make_stream();
  if (uploaded_.get() == nullptr) uploaded_ = make_event();
  if (!threads_) threads_.emplace(std::clamp(cpu_report().physical_cores, 1, kMostThreads));
  threads_->start();
  const size_t bytes = size_t(std::min(kSlot, size_)) * sizeof(float);
  for (std::vector<Slot>* slots : {&in_slots_, &out_slots_}) {
    while (slots->size() < kSlots) slots->push_back({.memory = make_pinned(bytes), .copied = make_event()});
  }
}

// The pieces that share a slot. A large parameter comes in parts, small ones come with their neighbours, so that each
// load is one copy between the device's block and the slot.
std::vector<HostLink::Pieces> HostLink::loads(const std::vector<uint32_t>& parameters) const {
  std::vector<Pieces> loads;
  for (const uint32_t p : parameters) {
    for (int64_t begin = 0; begin < sizes_[p]; begin += kSlot) {
      const Piece piece{.parameter = p, .begin = begin, .end = std::min(begin + kSlot, sizes_[p])};
      const bool follows =
          !loads.empty() && begin == 0 && loads.back().back().parameter + 1 == p &&
          offsets_[p] + piece.end - (offsets_[loads.back()[0].parameter] + loads.back()[0].begin) <= kSlot;
      if (follows) {
        loads.back().push_back(piece);
      } else {
        loads.push_back({piece});
      }
    }
  }
  return loads;
}

void HostLink::copy_on_host(const std::vector<Copy>& copies) {
  std::vector<Copy> parts;
  for (const Copy& one : copies) {
    for (int64_t begin = 0; begin < one.size; begin += kCopied) {
      parts.push_back({one.to + begin, one.from + begin, std::min(kCopied, one.size - begin)});
    }
  }
  threads_->for_each(int64_t(parts.size()), Order::in_turn, [&](int64_t i, int) {
    const Copy& part = parts[size_t(i)];
    std::memcpy(part.to, part.from, size_t(part.size) * sizeof(float));
  });
}

void HostLink::send(const std::vector<uint32_t>& parameters, const std::function<const float*(uint32_t)>& host,
                    float* device, cudaStream_t stream) {
  for (const Pieces& load : loads(parameters)) {
    const Slot& slot = in_slots_[next_slot_++ % kSlots];
    wait_for(slot.copied.get());
    float* const memory = static_cast<float*>(slot.memory.get());
    const int64_t first = offsets_[load[0].parameter] + load[0].begin;
    int64_t end = first;
    std::vector<Copy> copies;
    for (const Piece& piece : load) {
      const int64_t begin = offsets_[piece.parameter] + piece.begin;
      end = begin + piece.end - piece.begin;
      copies.push_back({memory + (begin - first), host(piece.parameter) + piece.begin, end - begin});
    }
    copy_on_host(copies);
    require(
        cudaMemcpyAsync(device + first, memory, size_t(end - first) * sizeof(float), cudaMemcpyHostToDevice, in_.get()),
        "cudaMemcpyAsync to the device");
    require(cudaEventRecord(slot.copied.get(), in_.get()), "cudaEventRecord");
  }
  require(cudaEventRecord(uploaded_.get(), in_.get()), "cudaEventRecord");
  require(cudaStreamWaitEvent(stream, uploaded_.get(), 0), "cudaStreamWaitEvent");
}

void HostLink::upload_gradients(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters,
                                cudaStream_t stream) {
  send(
      parameters, [&](uint32_t p) { return host[p].gradient; }, gradients_, stream);
}

void HostLink::upload_data(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters,
                           cudaStream_t stream) {
  send(
      parameters, [&](uint32_t p) { return host[p].data; }, data_, stream);
}

void HostLink::download(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters, cudaEvent_t ready) {
  require(cudaStreamWaitEvent(out_.get(), ready, 0), "cudaStreamWaitEvent");
  const std::vector<Pieces> all_loads = loads(parameters);
  const auto copy = [&](size_t i) {
    const Slot& slot = out_slots_[i % kSlots];
    const Piece& last = all_loads[i].back();
    const int64_t first = offsets_[all_loads[i][0].parameter] + all_loads[i][0].begin;
    const int64_t end = offsets_[last.parameter] + last.end;
    require(cudaMemcpyAsync(slot.memory.get(), data_ + first, size_t(end - first) * sizeof(float),
                            cudaMemcpyDeviceToHost, out_.get()),
            "cudaMemcpyAsync to the host");
    require(cudaEventRecord(slot.copied.get(), out_.get()), "cudaEventRecord");
  };
  for (size_t i = 0; i < all_loads.size() + kSlots - 1; ++i) {
    if (i < all_loads.size()) copy(i);
    if (i + 1 < kSlots) continue;
    const size_t done = i + 1 - kSlots;
    const Slot& slot = out_slots_[done % kSlots];
    wait_for(slot.copied.get());
    const float* const memory = static_cast<const float*>(slot.memory.get());
    const int64_t first = offsets_[all_loads[done][0].parameter] + all_loads[done][0].begin;
    std::vector<Copy> copies;
    for (const Piece& piece : all_loads[done]) {
      const int64_t begin = offsets_[piece.parameter] + piece.begin;
      copies.push_back({host[piece.parameter].data + piece.begin, memory + (begin - first), piece.end - piece.begin});
    }
    copy_on_host(copies);
  }
}

void HostLink::zero_gradients(cudaStream_t stream) {
  require(cudaMemsetAsync(gradients_, 0, size_t(gradient_size_) * sizeof(float), stream), "cudaMemsetAsync");
}

}  // namespace root_optimizer::cuda
