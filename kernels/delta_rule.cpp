// The parts of a gated delta rule: convolution, unit vectors, gates, and one step of one head.
#include <cmath>

#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {

void convolve(const float* rows, const float* before, int64_t stride, int64_t n_rows, int64_t n,
              const float* weights, int64_t taps, float* out) {
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    F32x16 tap_weights[kMaxTaps];
    for (int64_t tap = 0; tap < taps; ++tap) {
      float lanes[kLanes] = {};
      for (int64_t i = 0; i < some; ++i) lanes[i] = weights[(at + i) * taps + tap];
      tap_weights[tap] = load(lanes);
    }
    for (int64_t row = 0; row < n_rows; ++row) {
      F32x16 sum = zero();
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t from = row + tap - (taps - 1);
        const float* x = from < 0 ? before + (from + taps - 1) * stride : rows + from * stride;
        sum = fma(tap_weights[tap], load_first(x + at, some), sum);
      }
      store_first(out + row * stride + at, some, activate<Activation::silu>(sum));
    }
  }
}

void unit(float* x, int64_t n, float length) {
  F32x16 squares = zero();
  for (int64_t at = 0; at < n; at += kLanes) {
    const F32x16 v = load_first(x + at, n - at < kLanes ? n - at : kLanes);
    squares = fma(v, v, squares);
  }
  const F32x16 norm = set1(sqrtf(reduce_add(squares) + 1e-6f)), wanted = set1(length);
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    store_first(x + at, some, mul(div(load_first(x + at, some), norm), wanted));
  }
}

void delta_decay(float* x, int64_t n, const float* decay_log, const float* decay_bias) {
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    const F32x16 raw = add(load_first(x + at, some), load_first(decay_bias + at, some));
    const F32x16 rate = exp(load_first(decay_log + at, some));
    store_first(x + at, some, exp(sub(zero(), mul(rate, softplus(raw)))));
  }
}

namespace {

// V vectors of values; the matrix is (key_dim, stride) from their first column on.
template <int V>
void step(float* matrix, int64_t stride, int64_t key_dim, const float* query, const float* key,
          const F32x16* values, float write, float keep, F32x16* out) {
  F32x16 known[V], change[V];
  for (int i = 0; i < V; ++i) known[i] = zero();
  for (int64_t d = 0; d < key_dim; ++d) {
    const F32x16 k = set1(key[d]);
    for (int i = 0; i < V; ++i) {
      float* at = matrix + d * stride + i * kLanes;
      const F32x16 kept = mul(load(at), set1(keep));
      store(at, kept);
      known[i] = fma(k, kept, known[i]);
    }
  }
  for (int i = 0; i < V; ++i) {
    change[i] = mul(sub(values[i], known[i]), set1(write));
    out[i] = zero();
  }
  for (int64_t d = 0; d < key_dim; ++d) {
    const F32x16 k = set1(key[d]), q = set1(query[d]);
    for (int i = 0; i < V; ++i) {
      float* at = matrix + d * stride + i * kLanes;
      const F32x16 updated = fma(k, change[i], load(at));
      store(at, updated);
      out[i] = fma(q, updated, out[i]);
    }
  }
}

}  // namespace

void delta_step(float* matrix, int64_t key_dim, int64_t value_dim, const float* query,
                const float* key, const float* value, float write, float keep, float* out) {
  const int64_t stride = (value_dim + kLanes - 1) / kLanes * kLanes;
  constexpr int kMost = 4;
  for (int64_t at = 0; at < value_dim;) {
    const int n = stride - at >= kMost * kLanes ? kMost : 1;
    F32x16 values[kMost], results[kMost];
    const auto some = [=](int i) {
      const int64_t left = value_dim - at - i * kLanes;
      return left < kLanes ? left : kLanes;
    };
    for (int i = 0; i < n; ++i) values[i] = load_first(value + at + i * kLanes, some(i));
    if (n == kMost)
      step<kMost>(matrix + at, stride, key_dim, query, key, values, write, keep, results);
    else
      step<1>(matrix + at, stride, key_dim, query, key, values, write, keep, results);
    for (int i = 0; i < n; ++i) store_first(out + at + i * kLanes, some(i), results[i]);
    at += n * kLanes;
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
