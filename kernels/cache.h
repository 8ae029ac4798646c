// The KV cache of one layer, and the batch of one step: who may touch which part of it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace gangline {

// Rows of a step that belong together: row j of `count` is row first_row + j of the step, the token
// at position start + j of cache slot `slot`.
struct Sequence {
  int64_t slot, start, count, first_row;
};

// Checked when made: slots are below `lanes` and occur once, sequences end within `context`.
class Batch {
 public:
  Batch(const int32_t* slots, const int32_t* starts, const int32_t* counts, int64_t n,
        int64_t lanes, int64_t context)
      : lanes(lanes), context(context) {
    if (n > lanes) fail(n, "sequences in a batch, the number of lanes is", lanes);
    std::vector<bool> used(static_cast<size_t>(lanes));
    for (int64_t s = 0; s < n; ++s) {
      const int64_t slot = slots[s], start = starts[s], count = counts[s];
      if (slot < 0 || slot >= lanes) fail(slot, "is a cache slot of a batch, the limit is", lanes);
      if (used[static_cast<size_t>(slot)])
        throw std::invalid_argument("cache slot " + std::to_string(slot) + " occurs twice");
      used[static_cast<size_t>(slot)] = true;
      if (start < 0) fail(start, "is a start position of a batch, the least is", 0);
      if (count < 1) fail(count, "rows of a sequence in a batch, the least is", 1);
      if (start + count > context)
        fail(start + count, "positions of a sequence in a batch, the context is", context);
      sequences.push_back({slot, start, count, rows()});
      for (int64_t j = 0; j < count; ++j) {
        row_slots.push_back(slot);
        row_positions.push_back(start + j);
      }
    }
  }

  int64_t rows() const { return static_cast<int64_t>(row_slots.size()); }

  const int64_t lanes, context;
  std::vector<Sequence> sequences;
  std::vector<int64_t> row_slots, row_positions;

 private:
  [[noreturn]] static void fail(int64_t value, const char* what, int64_t limit) {
    throw std::invalid_argument(std::to_string(value) + " " + what + " " + std::to_string(limit));
  }
};

// Virtual memory for `lanes` sequences of `context` tokens; pages are touched as tokens arrive. With
// `shared` values they are the first value_dim numbers of the keys, and take no memory.
class Cache {
 public:
  Cache(int64_t lanes, int64_t context, int64_t n_kv_heads, int64_t head_dim, int64_t value_dim,
        bool shared, Dtype dtype)
      : lanes(lanes),
        context(context),
        n_kv_heads(n_kv_heads),
        head_dim(head_dim),
        value_dim(value_dim),
        shared(shared),
        dtype_(dtype) {
    const int64_t limit = int64_t{1} << 31;
    if (lanes < 1 || context < 1 || n_kv_heads < 1 || head_dim < 1 || value_dim < 1 ||
        lanes > limit || context > limit || n_kv_heads > limit || head_dim > kMaxHeadDim ||
        value_dim > kMaxValueDim || (shared && value_dim > head_dim))
      throw std::invalid_argument("a cache needs positive sizes, heads of at most " +
                                  std::to_string(kMaxHeadDim) + " numbers and values of at most " +
                                  std::to_string(kMaxValueDim) +
                                  " (shared ones: of at most a key's)");
    stride_ = ((shared ? head_dim : value_dim) + 15) / 16 * 16;
    const int64_t positions = (context + kBlock - 1) / kBlock * kBlock;
    keys_size_ = shared ? 0 : positions * head_dim;
    head_size_ = keys_size_ + positions * stride_;
    const double bytes = 4.0 * static_cast<double>(head_size_) * static_cast<double>(n_kv_heads) *
                         static_cast<double>(lanes);
    if (bytes > 9e18) throw std::bad_alloc();
    const size_t n = static_cast<size_t>(head_size_ * n_kv_heads * lanes);
    memory_ = std::calloc(n * static_cast<size_t>(dtype_bytes(dtype)) + kAlignment, 1);
    if (!memory_) throw std::bad_alloc();
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    numbers_ = reinterpret_cast<uint8_t*>((address + kAlignment - 1) / kAlignment * kAlignment);
  }
  ~Cache() { std::free(memory_); }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  CacheRow row(int64_t slot, int64_t kv_head) const {
    const int64_t bytes = dtype_bytes(dtype_);
    uint8_t* keys = numbers_ + (slot * n_kv_heads + kv_head) * head_size_ * bytes;
    return {keys, keys + keys_size_ * bytes, head_dim, value_dim, stride_, dtype_};
  }

  const int64_t lanes, context, n_kv_heads, head_dim, value_dim;
  const bool shared;

 private:
  static constexpr size_t kAlignment = 64;
  int64_t stride_, keys_size_, head_size_;
  Dtype dtype_;
  void* memory_;
  uint8_t* numbers_;
};

}  // namespace gangline
