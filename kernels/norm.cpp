// Root mean square norm, and layer norm without a bias.
#include <cmath>

#include "rows.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

// y (d) = (x - centre) / sqrt(mean((x - centre)^2) + eps) * w
inline void norm_row(const float* x, int64_t d, F32x16 centre, const float* w, float eps,
                     float* y) {
  const int64_t rest = d % kLanes, whole = d - rest;
  F32x16 squares = zero();
  for (int64_t at = 0; at < whole; at += kLanes) {
    const F32x16 v = sub(load(x + at), centre);
    squares = fma(v, v, squares);
  }
  F32x16 tail = zero();
  if (rest) {
    const F32x16 v = sub(load_first(x + whole, rest), centre);
    tail = if_less(iota(), set1(static_cast<float>(rest)), v, zero());
    squares = fma(tail, tail, squares);
  }
  const float mean = reduce_add(squares) / static_cast<float>(d);
  const F32x16 scale = set1(1.0f / sqrtf(mean + eps));
  for (int64_t at = 0; at < whole; at += kLanes)
    store(y + at, mul(mul(sub(load(x + at), centre), scale), load(w + at)));
  if (rest) store_first(y + whole, rest, mul(mul(tail, scale), load_first(w + whole, rest)));
}

}  // namespace

void rms_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y) {
  for (int64_t row = 0; row < t; ++row) norm_row(x + row * d, d, zero(), w, eps, y + row * d);
}

void layer_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y) {
  for (int64_t row = 0; row < t; ++row, x += d, y += d) {
    F32x16 sum = zero();
    int64_t at = 0;
    for (; at + kLanes <= d; at += kLanes) sum = add(sum, load(x + at));
    if (at < d) sum = add(sum, load_first(x + at, d - at));
    norm_row(x, d, set1(reduce_add(sum) / static_cast<float>(d)), w, eps, y);
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
