// Attention of one row over its cache, in one pass (https://arxiv.org/abs/1805.02867).
//
// The walk goes over blocks of kBlock positions from position 0; per head it keeps the largest
// score so far, the sum of weights and the weighted values, and scales them down when a larger
// score appears. What is done depends on the row's position alone, never on other rows.
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
};

// scores (16 V): products of the query with the first 16 V keys of a block.
template <int V>
inline void score(const float* keys, int64_t head_dim, const float* query, F32x16* scores) {
  F32x16 sums[V];
  for (int i = 0; i < V; ++i) sums[i] = zero();
  for (int64_t d = 0; d < head_dim; ++d) {
    const F32x16 q = set1(query[d]);
    for (int i = 0; i < V; ++i) sums[i] = fma(q, load(keys + d * kBlock + i * kLanes), sums[i]);
  }
  for (int i = 0; i < V; ++i) scores[i] = sums[i];
}

// sum (16 V) = sum * kept + weights (n) @ values (n, 16 V)
template <int V>
inline void weigh(const float* values, int64_t stride, const float* weights, int64_t n, float kept,
                  float* sum) {
  F32x16 sums[V];
  for (int i = 0; i < V; ++i) sums[i] = mul(load(sum + i * kLanes), set1(kept));
  for (int64_t j = 0; j < n; ++j) {
    const F32x16 w = set1(weights[j]);
    for (int i = 0; i < V; ++i) sums[i] = fma(w, load(values + j * stride + i * kLanes), sums[i]);
  }
  for (int i = 0; i < V; ++i) store(sum + i * kLanes, sums[i]);
}

inline float largest_of(F32x16 v, float largest) {
  float lanes[kLanes];
  store(lanes, v);
  for (float x : lanes)
    if (largest < x) largest = x;
  return largest;
}

// One head over the first n positions of a block.
void attend_block(const float* keys, const float* values, int64_t stride, int64_t head_dim,
                  int64_t n, HeadState& state) {
  F32x16 scores[kVectors];
  const int64_t used = (n + kLanes - 1) / kLanes;
  switch (used) {
    case 1: score<1>(keys, head_dim, state.query, scores); break;
    case 2: score<2>(keys, head_dim, state.query, scores); break;
    case 3: score<3>(keys, head_dim, state.query, scores); break;
    default: score<4>(keys, head_dim, state.query, scores); break;
  }
  // Positions after the row's own may hold anything; they get no weight.
  const F32x16 lowest = set1(-HUGE_VALF);
  const int64_t last = used - 1;
  scores[last] = if_less(iota(), set1(static_cast<float>(n - last * kLanes)), scores[last], lowest);
  F32x16 above = scores[0];
  for (int64_t i = 1; i < used; ++i) above = if_less(above, scores[i], scores[i], above);
  const float largest = largest_of(above, state.largest);

  float lanes[kLanes];
  store(lanes, exp(set1(state.largest - largest)));
  const float kept = lanes[0];
  float weights[kBlock];
  F32x16 total = zero();
  for (int64_t i = 0; i < used; ++i) {
    const F32x16 w = exp(sub(scores[i], set1(largest)));
    total = add(total, w);
    store(weights + i * kLanes, w);
  }
  store(lanes, fma(set1(state.total), set1(kept), set1(reduce_add(total))));
  state.total = lanes[0];
  state.largest = largest;

  int64_t d = 0;
  for (; d + 4 * kLanes <= stride; d += 4 * kLanes)
    weigh<4>(values + d, stride, weights, n, kept, state.sum + d);
  for (; d + 2 * kLanes <= stride; d += 2 * kLanes)
    weigh<2>(values + d, stride, weights, n, kept, state.sum + d);
  if (d < stride) weigh<1>(values + d, stride, weights, n, kept, state.sum + d);
}

}  // namespace

void append(const CacheRow& cache, int64_t position, const float* key, const float* value) {
  const int64_t block = position / kBlock, within = position % kBlock;
  float* keys = cache.keys + block * cache.head_dim * kBlock + within;
  for (int64_t d = 0; d < cache.head_dim; ++d) keys[d * kBlock] = key[d];
  std::memcpy(cache.values + position * cache.value_stride, value,
              static_cast<size_t>(cache.head_dim) * sizeof(float));
}

void attend(const CacheRow& cache, int64_t position, const float* queries, int64_t n_heads,
            float scale, float* out) {
  const int64_t head_dim = cache.head_dim, stride = cache.value_stride;
  HeadState states[kHeadsAtOnce];
  for (int64_t first = 0; first < n_heads; first += kHeadsAtOnce) {
    const int64_t n = n_heads - first < kHeadsAtOnce ? n_heads - first : kHeadsAtOnce;
    for (int64_t i = 0; i < n; ++i) {
      HeadState& state = states[i];
      for (int64_t d = 0; d < head_dim; ++d)
        state.query[d] = queries[(first + i) * head_dim + d] * scale;
      for (int64_t d = 0; d < stride; ++d) state.sum[d] = 0.0f;
      state.largest = -HUGE_VALF;
      state.total = 0.0f;
    }
    for (int64_t start = 0; start <= position; start += kBlock) {
      const int64_t count = position + 1 - start < kBlock ? position + 1 - start : kBlock;
      for (int64_t i = 0; i < n; ++i)
        attend_block(cache.keys + start * head_dim, cache.values + start * stride, stride, head_dim,
                     count, states[i]);
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t d = 0; d < head_dim; ++d)
        out[(first + i) * head_dim + d] = states[i].sum[d] / states[i].total;
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
