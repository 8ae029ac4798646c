// Attention of one row over its cache, in one pass (https://arxiv.org/abs/1805.02867).
//
// The walk goes over blocks of kBlock positions from position 0; per head it keeps the largest
// score so far, the sum of weights and the weighted values, and scales them down when a larger
// score appears. What is done depends on the row's position alone, never on other rows. Heads that
// share keys and values are computed together, so that each number is read and converted once;
// every head has lanes of its own, so how many go together changes no bit.
#include <cmath>

#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

constexpr int64_t kVectors = kBlock / kLanes;  // of scores per block
constexpr int64_t kHeadsAtOnce = 8;            // heads that share one read of a block

struct HeadState {
  float query[kMaxHeadDim];  // already scaled
  float sum[kMaxHeadDim + kLanes];
  float largest;
  float total;
  float weights[kBlock];
  float kept;  // what of the sum so far remains
};

// scores (H, 16 V): products of H queries with the first 16 V keys of a block.
template <Dtype D, int H, int V>
inline void score(const uint8_t* keys, int64_t head_dim, const HeadState* states,
                  F32x16 (*scores)[kVectors]) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  F32x16 sums[H][V];
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < V; ++i) sums[h][i] = zero();
  for (int64_t d = 0; d < head_dim; ++d) {
    F32x16 k[V];
    for (int i = 0; i < V; ++i) k[i] = Numbers<D>::load16(keys + (d * kBlock + i * kLanes) * bytes);
    for (int h = 0; h < H; ++h) {
      const F32x16 q = set1(states[h].query[d]);
      for (int i = 0; i < V; ++i) sums[h][i] = fma(q, k[i], sums[h][i]);
    }
  }
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < V; ++i) scores[h][i] = sums[h][i];
}

// sum (H, 16 V) = sum * kept + weights (H, n) @ values (n, 16 V), from column d on
template <Dtype D, int H, int V>
inline void weigh(const uint8_t* values, int64_t stride, int64_t n, int64_t d, HeadState* states) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  F32x16 sums[H][V];
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < V; ++i)
      sums[h][i] = mul(load(states[h].sum + d + i * kLanes), set1(states[h].kept));
  for (int64_t j = 0; j < n; ++j) {
    F32x16 v[V];
    for (int i = 0; i < V; ++i)
      v[i] = Numbers<D>::load16(values + (j * stride + d + i * kLanes) * bytes);
    for (int h = 0; h < H; ++h) {
      const F32x16 w = set1(states[h].weights[j]);
      for (int i = 0; i < V; ++i) sums[h][i] = fma(w, v[i], sums[h][i]);
    }
  }
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < V; ++i) store(states[h].sum + d + i * kLanes, sums[h][i]);
}

inline float largest_of(F32x16 v, float largest) {
  float lanes[kLanes];
  store(lanes, v);
  for (float x : lanes)
    if (largest < x) largest = x;
  return largest;
}

// Weights of the first n positions of a block, from their scores; updates the running sums.
inline void soften(F32x16* scores, int64_t n, HeadState& state) {
  const int64_t used = (n + kLanes - 1) / kLanes, last = used - 1;
  // Positions after the row's own may hold anything; they get no weight.
  const F32x16 lowest = set1(-HUGE_VALF);
  scores[last] =
      if_less(iota(), set1(static_cast<float>(n - last * kLanes)), scores[last], lowest);
  F32x16 above = scores[0];
  for (int64_t i = 1; i < used; ++i) above = if_less(above, scores[i], scores[i], above);
  const float largest = largest_of(above, state.largest);

  float lanes[kLanes];
  store(lanes, exp(set1(state.largest - largest)));
  state.kept = lanes[0];
  F32x16 total = zero();
  for (int64_t i = 0; i < used; ++i) {
    const F32x16 w = exp(sub(scores[i], set1(largest)));
    total = add(total, w);
    store(state.weights + i * kLanes, w);
  }
  store(lanes, fma(set1(state.total), set1(state.kept), set1(reduce_add(total))));
  state.total = lanes[0];
  state.largest = largest;
}

// H heads over the first n positions of a block.
template <Dtype D, int H>
void attend_block(const uint8_t* keys, const uint8_t* values, int64_t stride, int64_t head_dim,
                  int64_t n, HeadState* states) {
  F32x16 scores[H][kVectors];
  switch ((n + kLanes - 1) / kLanes) {
    case 1: score<D, H, 1>(keys, head_dim, states, scores); break;
    case 2: score<D, H, 2>(keys, head_dim, states, scores); break;
    case 3: score<D, H, 3>(keys, head_dim, states, scores); break;
    default: score<D, H, 4>(keys, head_dim, states, scores); break;
  }
  for (int h = 0; h < H; ++h) soften(scores[h], n, states[h]);
  int64_t d = 0;
  for (; d + 4 * kLanes <= stride; d += 4 * kLanes) weigh<D, H, 4>(values, stride, n, d, states);
  for (; d + 2 * kLanes <= stride; d += 2 * kLanes) weigh<D, H, 2>(values, stride, n, d, states);
  if (d < stride) weigh<D, H, 1>(values, stride, n, d, states);
}

template <Dtype D>
void attend_heads(const CacheRow& cache, int64_t position, int64_t n, HeadState* states) {
  const int64_t head_dim = cache.head_dim, stride = cache.value_stride;
  constexpr int64_t bytes = Numbers<D>::bytes;
  for (int64_t start = 0; start <= position; start += kBlock) {
    const int64_t count = position + 1 - start < kBlock ? position + 1 - start : kBlock;
    const uint8_t* keys = cache.keys + start * head_dim * bytes;
    const uint8_t* values = cache.values + start * stride * bytes;
    int64_t i = 0;
    for (; i + kSharedHeads <= n; i += kSharedHeads)
      attend_block<D, kSharedHeads>(keys, values, stride, head_dim, count, states + i);
    if (kSharedHeads > 2)
      for (; i + 2 <= n; i += 2)
        attend_block<D, 2>(keys, values, stride, head_dim, count, states + i);
    for (; i < n; ++i) attend_block<D, 1>(keys, values, stride, head_dim, count, states + i);
  }
}

template <Dtype D>
void append_as(const CacheRow& cache, int64_t position, const float* key, const float* value) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  const int64_t block = position / kBlock, within = position % kBlock;
  uint8_t* keys = cache.keys + (block * cache.head_dim * kBlock + within) * bytes;
  uint8_t* values = cache.values + position * cache.value_stride * bytes;
  for (int64_t d = 0; d < cache.head_dim; d += kLanes) {
    const int64_t n = cache.head_dim - d < kLanes ? cache.head_dim - d : kLanes;
    uint8_t stored[kLanes * 4];
    Numbers<D>::store16(stored, n == kLanes ? load(key + d) : load_first(key + d, n));
    for (int64_t i = 0; i < n; ++i)
      std::memcpy(keys + (d + i) * kBlock * bytes, stored + i * bytes, bytes);
    Numbers<D>::store16(stored, n == kLanes ? load(value + d) : load_first(value + d, n));
    std::memcpy(values + d * bytes, stored, static_cast<size_t>(n * bytes));
  }
}

}  // namespace

void append(const CacheRow& cache, int64_t position, const float* key, const float* value) {
  if (cache.dtype == Dtype::f16) return append_as<Dtype::f16>(cache, position, key, value);
  return append_as<Dtype::f32>(cache, position, key, value);
}

void attend(const CacheRow& cache, int64_t position, const float* queries, int64_t n_heads,
            float scale, float* out) {
  const int64_t head_dim = cache.head_dim;
  HeadState states[kHeadsAtOnce];
  for (int64_t first = 0; first < n_heads; first += kHeadsAtOnce) {
    const int64_t n = n_heads - first < kHeadsAtOnce ? n_heads - first : kHeadsAtOnce;
    for (int64_t i = 0; i < n; ++i) {
      HeadState& state = states[i];
      for (int64_t d = 0; d < head_dim; ++d)
        state.query[d] = queries[(first + i) * head_dim + d] * scale;
      for (int64_t d = 0; d < cache.value_stride; ++d) state.sum[d] = 0.0f;
      state.largest = -HUGE_VALF;
      state.total = 0.0f;
    }
    if (cache.dtype == Dtype::f16) attend_heads<Dtype::f16>(cache, position, n, states);
    else attend_heads<Dtype::f32>(cache, position, n, states);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t d = 0; d < head_dim; ++d)
        out[(first + i) * head_dim + d] = states[i].sum[d] / states[i].total;
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
