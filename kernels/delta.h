// Linear attention by a gated delta rule: https://arxiv.org/abs/2412.06464.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "cache.h"

namespace gangline {

// src/gangline/engine/operations.py (DeltaNet) says what these are.
struct DeltaSizes {
  int64_t n_key_heads, n_value_heads, key_dim, value_dim, taps;

  int64_t keys_width() const { return n_key_heads * key_dim; }  // of queries, and of keys
  int64_t values_width() const { return n_value_heads * value_dim; }
  int64_t width() const { return 2 * keys_width() + values_width(); }
};

// What a layer remembers of each lane: the rows before the next one, and a matrix per value head.
class DeltaState {
 public:
  // std::invalid_argument for sizes that are not positive or too large.
  DeltaState(int64_t lanes, const DeltaSizes& sizes);

  float* rows(int64_t slot) { return memory_.get() + slot * lane_size_; }  // (taps - 1, width)
  // (key_dim, value_stride) of one head.
  float* matrix(int64_t slot, int64_t head) {
    return rows(slot) + rows_size_ + head * sizes.key_dim * value_stride;
  }
  // What a sequence starts with.
  void clear(int64_t slot) { std::fill_n(rows(slot), lane_size_, 0.0f); }

  const int64_t lanes;
  const DeltaSizes sizes;
  const int64_t value_stride;  // value_dim rounded up to 16

 private:
  int64_t rows_size_, lane_size_;
  std::unique_ptr<float, void (*)(void*)> memory_;  // touched only as sequences arrive
};

// out (t, n_value_heads * value_dim) from mixed (t, width), beta and decay (t, n_value_heads), and
// what the layer learned: convolution (width, taps), decay_log and decay_bias (n_value_heads).
struct DeltaInputs {
  const float *mixed, *beta, *decay;
  const float *convolution, *decay_log, *decay_bias;
};
void delta_net(const DeltaInputs& in, DeltaState& state, const Batch& batch, float* out);

}  // namespace gangline
