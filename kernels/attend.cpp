// Attention of one row over its cache, in one pass (https://arxiv.org/abs/1805.02867).
//
// The walk goes over blocks of kBlock positions, from the one that holds the first visible position
// on; per head it keeps the largest score so far, the sum of weights and the weighted values, and
// scales them down when a larger score appears. What is done depends on the row's position alone,
// never on other rows. Heads that share keys and values are computed together, so that each number
// is read and converted once; every head has lanes of its own, so how many go together changes no
// bit.
#include <cmath>

#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

constexpr int64_t kVectors = kBlock / kLanes;  // of scores per block
constexpr int64_t kHeadsAtOnce = 8;            // heads that share one read of a block

struct HeadState {
  float query[kMaxHeadDim];  // already scaled, filled up with zeros to whole vectors
  float sum[kMaxValueDim];
  float largest;
  float total;
  float weights[kBlock];
  float kept;  // what of the sum so far remains
};

// The part of a block that a row sees: positions [first, end) of its kBlock.
struct Visible {
  int64_t first, end;
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

// The same where keys lie in rows: P positions, a score being a sum over lanes.
template <Dtype D, int H, int P>
inline void score_rows(const uint8_t* rows, int64_t stride, const HeadState* states,
                       float (*scores)[kBlock]) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  F32x16 sums[H][P];
  for (int h = 0; h < H; ++h)
    for (int j = 0; j < P; ++j) sums[h][j] = zero();
  for (int64_t d = 0; d < stride; d += kLanes) {
    F32x16 k[P];
    for (int j = 0; j < P; ++j) k[j] = Numbers<D>::load16(rows + (j * stride + d) * bytes);
    for (int h = 0; h < H; ++h) {
      const F32x16 q = load(states[h].query + d);
      for (int j = 0; j < P; ++j) sums[h][j] = fma(q, k[j], sums[h][j]);
    }
  }
  for (int h = 0; h < H; ++h)
    for (int j = 0; j < P; ++j) scores[h][j] = reduce_add(sums[h][j]);
}

// sum (H, 16 V) = sum * kept + weights (H, visible) @ values (visible, 16 V), from column d on
template <Dtype D, int H, int V>
inline void weigh(const uint8_t* values, int64_t stride, Visible visible, int64_t d,
                  HeadState* states) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  F32x16 sums[H][V];
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < V; ++i)
      sums[h][i] = mul(load(states[h].sum + d + i * kLanes), set1(states[h].kept));
  for (int64_t j = visible.first; j < visible.end; ++j) {
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

// Weights of the visible positions of a block, from their scores; updates the running sums.
inline void soften(F32x16* scores, Visible visible, float cap, HeadState& state) {
  const int64_t used = (visible.end + kLanes - 1) / kLanes, last = used - 1;
  if (cap > 0.0f)
    for (int64_t i = 0; i < used; ++i) scores[i] = capped(scores[i], cap);
  // Positions that the row does not see may hold anything; they get no weight.
  const F32x16 lowest = set1(-HUGE_VALF);
  const auto from = [](int64_t lane) { return set1(static_cast<float>(lane)); };
  scores[last] = if_less(iota(), from(visible.end - last * kLanes), scores[last], lowest);
  for (int64_t i = 0; i * kLanes < visible.first; ++i)
    scores[i] = if_less(iota(), from(visible.first - i * kLanes), lowest, scores[i]);
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

template <Dtype D, int H>
void score_block(const CacheRow& cache, const uint8_t* keys, int64_t end, const HeadState* states,
                 F32x16 (*scores)[kVectors]) {
  if (cache.shared()) {
    constexpr int64_t bytes = Numbers<D>::bytes;
    float numbers[H][kBlock] = {};
    int64_t j = 0;
    for (; j + kSharedHeads <= end; j += kSharedHeads) {
      float few[H][kBlock];
      score_rows<D, H, kSharedHeads>(keys + j * cache.stride * bytes, cache.stride, states, few);
      for (int h = 0; h < H; ++h)
        for (int i = 0; i < kSharedHeads; ++i) numbers[h][j + i] = few[h][i];
    }
    for (; j < end; ++j) {
      float few[H][kBlock];
      score_rows<D, H, 1>(keys + j * cache.stride * bytes, cache.stride, states, few);
      for (int h = 0; h < H; ++h) numbers[h][j] = few[h][0];
    }
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < kVectors; ++i) scores[h][i] = load(numbers[h] + i * kLanes);
    return;
  }
  switch ((end + kLanes - 1) / kLanes) {
    case 1: return score<D, H, 1>(keys, cache.head_dim, states, scores);
    case 2: return score<D, H, 2>(keys, cache.head_dim, states, scores);
    case 3: return score<D, H, 3>(keys, cache.head_dim, states, scores);
    default: return score<D, H, 4>(keys, cache.head_dim, states, scores);
  }
}

// H heads over one block.
template <Dtype D, int H>
void attend_block(const CacheRow& cache, const uint8_t* keys, const uint8_t* values, float cap,
                  Visible visible, HeadState* states) {
  F32x16 scores[H][kVectors];
  score_block<D, H>(cache, keys, visible.end, states, scores);
  for (int h = 0; h < H; ++h) soften(scores[h], visible, cap, states[h]);
  const int64_t dim = cache.value_dim, stride = cache.stride;
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
    weigh<D, H, 4>(values, stride, visible, d, states);
  for (; d + 2 * kLanes <= dim; d += 2 * kLanes)
    weigh<D, H, 2>(values, stride, visible, d, states);
  for (; d < dim; d += kLanes) weigh<D, H, 1>(values, stride, visible, d, states);
}

template <Dtype D>
void attend_heads(const CacheRow& cache, const AttentionRules& rules, int64_t position, int64_t n,
                  HeadState* states) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  const int64_t key_numbers = cache.shared() ? cache.stride : cache.head_dim;
  const int64_t first_visible = rules.first_visible(position);
  for (int64_t start = first_visible / kBlock * kBlock; start <= position; start += kBlock) {
    const Visible visible = {first_visible > start ? first_visible - start : 0,
                             position + 1 - start < kBlock ? position + 1 - start : kBlock};
    const uint8_t* keys = cache.keys + start * key_numbers * bytes;
    const uint8_t* values = cache.values + start * cache.stride * bytes;
    const auto run = [&](auto block, int64_t i) {
      block(cache, keys, values, rules.soft_cap, visible, states + i);
    };
    int64_t i = 0;
    for (; i + kSharedHeads <= n; i += kSharedHeads) run(attend_block<D, kSharedHeads>, i);
    if (kSharedHeads > 2)
      for (; i + 2 <= n; i += 2) run(attend_block<D, 2>, i);
    for (; i < n; ++i) run(attend_block<D, 1>, i);
  }
}

// A row of n numbers in the cache's dtype.
template <Dtype D>
void store_row(const float* from, int64_t n, uint8_t* to) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  for (int64_t d = 0; d < n; d += kLanes) {
    const int64_t some = n - d < kLanes ? n - d : kLanes;
    uint8_t stored[kLanes * 4];
    Numbers<D>::store16(stored, some == kLanes ? load(from + d) : load_first(from + d, some));
    std::memcpy(to + d * bytes, stored, static_cast<size_t>(some * bytes));
  }
}

template <Dtype D>
void append_as(const CacheRow& cache, int64_t position, const float* key, const float* value) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  uint8_t* row = cache.values + position * cache.stride * bytes;
  if (cache.shared()) return store_row<D>(key, cache.head_dim, row);
  store_row<D>(value, cache.value_dim, row);
  const int64_t block = position / kBlock, within = position % kBlock;
  uint8_t* keys = cache.keys + (block * cache.head_dim * kBlock + within) * bytes;
  uint8_t stored[kMaxHeadDim * bytes];
  store_row<D>(key, cache.head_dim, stored);
  for (int64_t d = 0; d < cache.head_dim; ++d)
    std::memcpy(keys + d * kBlock * bytes, stored + d * bytes, static_cast<size_t>(bytes));
}

// A sink is a score that was seen before the first position.
void begin(const CacheRow& cache, const float* query, float scale, const float* sink,
           HeadState& state) {
  for (int64_t d = 0; d < cache.head_dim; ++d) state.query[d] = query[d] * scale;
  for (int64_t d = cache.head_dim; d % kLanes; ++d) state.query[d] = 0.0f;
  for (int64_t d = 0; d < cache.value_dim; d += kLanes) store(state.sum + d, zero());
  state.largest = sink ? *sink : -HUGE_VALF;
  state.total = sink ? 1.0f : 0.0f;
}

}  // namespace

void append(const CacheRow& cache, int64_t position, const float* key, const float* value) {
  if (cache.dtype == Dtype::f16) return append_as<Dtype::f16>(cache, position, key, value);
  return append_as<Dtype::f32>(cache, position, key, value);
}

void attend(const CacheRow& cache, const AttentionRules& rules, int64_t position,
            const float* queries, const float* sinks, int64_t n_heads, float* out) {
  const int64_t head_dim = cache.head_dim, value_dim = cache.value_dim;
  HeadState states[kHeadsAtOnce];
  for (int64_t first = 0; first < n_heads; first += kHeadsAtOnce) {
    const int64_t n = n_heads - first < kHeadsAtOnce ? n_heads - first : kHeadsAtOnce;
    for (int64_t i = 0; i < n; ++i)
      begin(cache, queries + (first + i) * head_dim, rules.scale,
            sinks ? sinks + first + i : nullptr, states[i]);
    if (cache.dtype == Dtype::f16)
      attend_heads<Dtype::f16>(cache, rules, position, n, states);
    else
      attend_heads<Dtype::f32>(cache, rules, position, n, states);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t d = 0; d < value_dim; ++d)
        out[(first + i) * value_dim + d] = states[i].sum[d] / states[i].total;
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
