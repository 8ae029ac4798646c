// Sizes and rules of attention, and of what stands in its place, as kernels take them.
#pragma once

#include <cstdint>

namespace gangline {

enum class Dtype : uint8_t { f32, f16, bf16 };

// Largest dimensions of a head, limits of stack buffers in attend; multiples of 16.
constexpr int64_t kMaxHeadDim = 576;
constexpr int64_t kMaxValueDim = 512;
// Positions per block of the KV cache, and per step of attention's walk over it.
constexpr int64_t kBlock = 64;

// Taps of the convolution before a delta rule, a limit of registers.
constexpr int64_t kMaxTaps = 8;

// Keys and values of one cache slot and one key/value head, `stride` being a number of numbers,
// a dimension rounded up to 16 (the rest of each row is zero).
// Keys are (blocks, head_dim, kBlock): the positions of a block side by side, so that one vector
// holds one dimension of 16 keys. Values are (blocks * kBlock, stride of value_dim).
// Where values are shared they are the first value_dim numbers of the keys, and these lie in rows:
// (blocks * kBlock, stride of head_dim), with keys == values.
struct CacheRow {
  uint8_t* keys;
  uint8_t* values;
  int64_t head_dim;
  int64_t value_dim;
  int64_t stride;
  Dtype dtype;  // f32, or f16 (rounded to the nearest, ties to even)

  bool shared() const { return keys == values; }
};

// Queries of rows and heads that attend computes together, a limit of its stack.
constexpr int64_t kQueriesAtOnce = 16;

// Rows at n positions from `position` on: the queries (heads, head_dim) of each and what comes out,
// (heads, value_dim), are strides apart.
struct QueryRows {
  int64_t position, n;
  const float* queries;
  int64_t stride;
  float* out;
  int64_t out_stride;
};

// What becomes of scores: times `scale`; then cap * tanh(score / cap) where soft_cap > 0. A row sees
// itself and the window - 1 positions before it, all of them where window is 0.
struct AttentionRules {
  float scale;
  float soft_cap;
  int64_t window;

  int64_t first_visible(int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};

}  // namespace gangline
