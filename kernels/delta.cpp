#include "delta.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "dispatch.h"
#include "pool.h"

namespace gangline {

DeltaState::DeltaState(int64_t lanes, const DeltaSizes& sizes)
    : lanes(lanes),
      sizes(sizes),
      value_stride((sizes.value_dim + 15) / 16 * 16),
      memory_(nullptr, std::free) {
  const int64_t limit = 1 << 16;
  for (int64_t size : {lanes, sizes.n_key_heads, sizes.n_value_heads, sizes.key_dim,
                       sizes.value_dim, sizes.taps})
    if (size < 1 || size > limit)
      throw std::invalid_argument("the sizes of a delta rule must be from 1 to 65536");
  if (sizes.n_value_heads % sizes.n_key_heads)
    throw std::invalid_argument("value heads are not a multiple of key heads");
  if (sizes.taps > kMaxTaps)
    throw std::invalid_argument("a convolution has at most " + std::to_string(kMaxTaps) + " taps");
  rows_size_ = (sizes.taps - 1) * sizes.width();
  lane_size_ = rows_size_ + sizes.n_value_heads * sizes.key_dim * value_stride;
  if (static_cast<double>(lane_size_) * static_cast<double>(lanes) > 1e12) throw std::bad_alloc();
  const size_t n = static_cast<size_t>(lane_size_ * lanes);
  memory_.reset(static_cast<float*>(std::calloc(n, sizeof(float))));
  if (!memory_) throw std::bad_alloc();
}

namespace {

// Rows before the next step: the last ones of this step, and older ones where it is short.
void keep_last_rows(const Sequence& sequence, const float* rows, int64_t n_kept, int64_t width,
                    float* kept) {
  for (int64_t i = 0; i < n_kept; ++i) {
    const int64_t from = sequence.count - n_kept + i;
    const float* row = from < 0 ? kept + (from + n_kept) * width : rows + from * width;
    std::copy_n(row, width, kept + i * width);
  }
}

}  // namespace

void delta_net(const DeltaInputs& in, DeltaState& state, const Batch& batch, float* out) {
  const Kernels& run = kernels();
  const DeltaSizes& sizes = state.sizes;
  const int64_t t = batch.rows(), width = sizes.width(), n_heads = sizes.n_value_heads;
  const int64_t n_sequences = static_cast<int64_t>(batch.sequences.size());
  // Kept by the calling thread; the threads that help it get pointers.
  thread_local std::vector<float> scratch;
  const size_t needed = static_cast<size_t>(t * (width + 2 * n_heads));
  if (scratch.size() < needed) scratch.resize(needed);
  float* const mixed = scratch.data();          // (t, width)
  float* const write = mixed + t * width;       // (t, n_heads)
  float* const keep = write + t * n_heads;      // (t, n_heads)
  std::copy_n(in.beta, t * n_heads, write);
  std::copy_n(in.decay, t * n_heads, keep);
  run.sigmoid(write, t * n_heads);
  for (int64_t row = 0; row < t; ++row)
    run.delta_decay(keep + row * n_heads, n_heads, in.decay_log, in.decay_bias);

  // 1. The convolution; sequences and channels are independent.
  for (const Sequence& sequence : batch.sequences)
    if (sequence.start == 0) state.clear(sequence.slot);
  constexpr int64_t kChannels = 64;
  const int64_t n_parts = (width + kChannels - 1) / kChannels;
  const double ns = static_cast<double>(t * width);
  parallel_for(n_sequences * n_parts, ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const Sequence& sequence = batch.sequences[static_cast<size_t>(item / n_parts)];
      const int64_t at = item % n_parts * kChannels, row = sequence.first_row * width + at;
      run.convolve(in.mixed + row, state.rows(sequence.slot) + at, width, sequence.count,
                   std::min(kChannels, width - at), in.convolution + at * sizes.taps, sizes.taps,
                   mixed + row);
    }
  });
  for (const Sequence& sequence : batch.sequences)
    keep_last_rows(sequence, in.mixed + sequence.first_row * width, sizes.taps - 1, width,
                   state.rows(sequence.slot));

  // 2. Queries and keys of one length.
  const float query_length = 1.0f / sqrtf(static_cast<float>(sizes.key_dim));
  parallel_for(t, static_cast<double>(2 * t * sizes.keys_width()), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      for (int64_t head = 0; head < 2 * sizes.n_key_heads; ++head)
        run.unit(mixed + row * width + head * sizes.key_dim, sizes.key_dim,
                 head < sizes.n_key_heads ? query_length : 1.0f);
  });

  // 3. Row after row; sequences and heads are independent.
  const double step_ns = static_cast<double>(t * n_heads * sizes.key_dim * state.value_stride) / 8;
  parallel_for(n_sequences * n_heads, step_ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const Sequence& sequence = batch.sequences[static_cast<size_t>(item / n_heads)];
      const int64_t head = item % n_heads, key_head = head * sizes.n_key_heads / n_heads;
      float* matrix = state.matrix(sequence.slot, head);
      for (int64_t row = sequence.first_row; row < sequence.first_row + sequence.count; ++row) {
        const float* query = mixed + row * width + key_head * sizes.key_dim;
        const float* value = mixed + row * width + 2 * sizes.keys_width() + head * sizes.value_dim;
        run.delta_step(matrix, sizes.key_dim, sizes.value_dim, query, query + sizes.keys_width(),
                       value, write[row * n_heads + head], keep[row * n_heads + head],
                       out + (row * n_heads + head) * sizes.value_dim);
      }
    }
  });
}

}  // namespace gangline
