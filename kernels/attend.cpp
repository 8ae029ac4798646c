// Attention over the cache, in one pass (https://arxiv.org/abs/1805.02867).
//
// The walk of a row goes over blocks of kBlock positions, from the one that holds the first visible
// position on; per head it keeps the largest score so far, the sum of weights and the weighted
// values, and scales them down when a larger score appears. What is done depends on the row's
// position alone, never on other rows. Heads that share keys and values are computed together, and
// so are neighbouring rows of a prompt: a block is read for all of them, and converted for as many
// as fit the registers. Each head of each row has lanes of its own, so how many go together changes
// no bit.
#include <cmath>

#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

constexpr int64_t kVectors = kBlock / kLanes;  // of scores per block

// One head of one row.
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

  bool none() const { return end <= first; }
  bool operator==(const Visible& other) const {
    return first == other.first && end == other.end;
  }
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

// Weights of the visible positions of a block, from the scores of H heads; updates the running
// sums. What is one number per head is a lane.
template <int H>
inline void soften(F32x16 (*scores)[kVectors], Visible visible, float cap, HeadState* states) {
  const int64_t used = (visible.end + kLanes - 1) / kLanes, last = used - 1;
  const F32x16 lowest = set1(-HUGE_VALF);
  const auto from = [](int64_t lane) { return set1(static_cast<float>(lane)); };
  float before[kLanes] = {}, largest[kLanes] = {}, totals[kLanes] = {}, added[kLanes] = {};
  for (int h = 0; h < H; ++h) {
    F32x16* own = scores[h];
    if (cap > 0.0f)
      for (int64_t i = 0; i < used; ++i) own[i] = capped(own[i], cap);
    // Positions that the row does not see may hold anything; they get no weight.
    own[last] = if_less(iota(), from(visible.end - last * kLanes), own[last], lowest);
    for (int64_t i = 0; i * kLanes < visible.first; ++i)
      own[i] = if_less(iota(), from(visible.first - i * kLanes), lowest, own[i]);
    F32x16 above = own[0];
    for (int64_t i = 1; i < used; ++i) above = if_less(above, own[i], own[i], above);
    const float most = reduce_max(above);
    before[h] = states[h].largest;
    largest[h] = before[h] < most ? most : before[h];
    totals[h] = states[h].total;
  }
  for (int h = 0; h < H; ++h) {
    F32x16 total = zero();
    for (int64_t i = 0; i < used; ++i) {
      const F32x16 w = exp(sub(scores[h][i], set1(largest[h])));
      total = add(total, w);
      store(states[h].weights + i * kLanes, w);
    }
    added[h] = reduce_add(total);
  }
  float kept[kLanes];
  store(kept, exp(sub(load(before), load(largest))));
  store(totals, fma(load(totals), load(kept), load(added)));
  for (int h = 0; h < H; ++h) {
    states[h].kept = kept[h];
    states[h].total = totals[h];
    states[h].largest = largest[h];
  }
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
void attend_heads(const CacheRow& cache, const uint8_t* keys, const uint8_t* values, float cap,
                  Visible visible, HeadState* states) {
  F32x16 scores[H][kVectors];
  score_block<D, H>(cache, keys, visible.end, states, scores);
  soften<H>(scores, visible, cap, states);
  const int64_t dim = cache.value_dim, stride = cache.stride;
  int64_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes)
    weigh<D, H, 4>(values, stride, visible, d, states);
  for (; d + 2 * kLanes <= dim; d += 2 * kLanes)
    weigh<D, H, 2>(values, stride, visible, d, states);
  for (; d < dim; d += kLanes) weigh<D, H, 1>(values, stride, visible, d, states);
}

// n heads over one block, of which they all see the same part.
template <Dtype D>
void attend_block(const CacheRow& cache, const uint8_t* keys, const uint8_t* values, float cap,
                  Visible visible, HeadState* states, int64_t n) {
  int64_t i = 0;
  for (; i + kSharedHeads <= n; i += kSharedHeads)
    attend_heads<D, kSharedHeads>(cache, keys, values, cap, visible, states + i);
  if (kSharedHeads > 2)
    for (; i + 2 <= n; i += 2)
      attend_heads<D, 2>(cache, keys, values, cap, visible, states + i);
  for (; i < n; ++i) attend_heads<D, 1>(cache, keys, values, cap, visible, states + i);
}

// The heads of all rows, row by row, n_heads each.
template <Dtype D>
void attend_rows(const CacheRow& cache, const AttentionRules& rules, const QueryRows& rows,
                 int64_t n_heads, HeadState* states) {
  constexpr int64_t bytes = Numbers<D>::bytes;
  const int64_t key_numbers = cache.shared() ? cache.stride : cache.head_dim;
  const int64_t end = rows.position + rows.n;
  for (int64_t start = rules.first_visible(rows.position) / kBlock * kBlock; start < end;
       start += kBlock) {
    const uint8_t* keys = cache.keys + start * key_numbers * bytes;
    const uint8_t* values = cache.values + start * cache.stride * bytes;
    const auto visible_to = [&](int64_t row) {
      const int64_t position = rows.position + row, first = rules.first_visible(position) - start;
      const int64_t last = position - start;
      return Visible{first > 0 ? first : 0, last < kBlock ? last + 1 : kBlock};
    };
    for (int64_t row = 0, next = 0; row < rows.n; row = next) {
      const Visible visible = visible_to(row);
      for (next = row + 1; next < rows.n && visible_to(next) == visible;) ++next;
      if (!visible.none())
        attend_block<D>(cache, keys, values, rules.soft_cap, visible, states + row * n_heads,
                        (next - row) * n_heads);
    }
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

void attend(const CacheRow& cache, const AttentionRules& rules, const QueryRows& rows,
            const float* sinks, int64_t n_heads) {
  HeadState states[kQueriesAtOnce];
  for (int64_t row = 0; row < rows.n; ++row)
    for (int64_t i = 0; i < n_heads; ++i)
      begin(cache, rows.queries + row * rows.stride + i * cache.head_dim, rules.scale,
            sinks ? sinks + i : nullptr, states[row * n_heads + i]);
  if (cache.dtype == Dtype::f16)
    attend_rows<Dtype::f16>(cache, rules, rows, n_heads, states);
  else
    attend_rows<Dtype::f32>(cache, rules, rows, n_heads, states);
  for (int64_t row = 0; row < rows.n; ++row)
    for (int64_t i = 0; i < n_heads; ++i) {
      const HeadState& state = states[row * n_heads + i];
      float* out = rows.out + row * rows.out_stride + i * cache.value_dim;
      for (int64_t d = 0; d < cache.value_dim; ++d) out[d] = state.sum[d] / state.total;
    }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
