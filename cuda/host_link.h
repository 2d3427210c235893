#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "../native/backend.h"
#include "../native/thread_pool.h"
#include "handles.h"

namespace root_optimizer::cuda {

/// Parameters' data and gradients on the device, and their way to and from the host's arrays. Each way has two pinned
/// buffers and a stream of its own: while one buffer is filled or emptied, the other is copied. Several threads fill
/// and empty them, because one alone copies several times more slowly than the bus does.
class HostLink {
 public:
  /// The first `gradients` parameters have a gradient.
  HostLink(cudaMemPool_t pool, const std::vector<int64_t>& sizes, size_t gradients, cudaStream_t stream);
  bool is_for(const std::vector<int64_t>& sizes, size_t gradients) const {
    return sizes == sizes_ && gradients == gradient_count_;
  }
  /// Frees the device's memory in the order of the stream.
  void release(cudaStream_t stream) noexcept;

  /// Where each parameter lies.
  std::vector<Arrays> arrays() const;
  size_t bytes() const { return size_t(size_ + gradient_size_) * sizeof(float); }

  /// Takes the pinned memory and the threads that copies need, before anything is changed. A run that never copies
  /// never pays for it.
  void prepare();
  /// Both copy what these parameters have; `stream` waits for it.
  void upload_gradients(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters, cudaStream_t stream);
  void upload_data(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters, cudaStream_t stream);
  /// Copies the data of these parameters when the event has come.
  void download(const std::vector<Arrays>& host, const std::vector<uint32_t>& parameters, cudaEvent_t ready);
  void zero_gradients(cudaStream_t stream);

 private:
  /// A pinned buffer and the event behind its last copy.
  struct Slot {
    Pinned memory;
    Event copied;
  };
  /// A part of a parameter's array.
  struct Piece {
    uint32_t parameter;
    int64_t begin;
    int64_t end;
  };
  using Pieces = std::vector<Piece>;
  /// A copy between an array of the host and a pinned buffer.
  struct Copy {
    float* to;
    const float* from;
    int64_t size;
  };

  std::vector<Pieces> loads(const std::vector<uint32_t>& parameters) const;
  void send(const std::vector<uint32_t>& parameters, const std::function<const float*(uint32_t)>& host, float* device,
            cudaStream_t stream);

  /// Copies with all threads.
  void copy_on_host(const std::vector<Copy>& copies);

  std::vector<int64_t> sizes_;
  size_t gradient_count_;
  std::vector<int64_t> offsets_;  // of each parameter in both blocks
  int64_t size_ = 0;              // elements of the block of data
  int64_t gradient_size_ = 0;     // elements of the block of gradients, which begins like the other
  float* data_ = nullptr;
  float* gradients_ = nullptr;
  Stream in_, out_;
  Event uploaded_;
  std::vector<Slot> in_slots_, out_slots_;
  size_t next_slot_ = 0;
  std::optional<ThreadPool> threads_;
};

}  // namespace root_optimizer::cuda
