// What is done to each number by itself.
#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

// y (n) = f(y, x), 16 numbers at a time.
template <class F>
inline void each_pair(float* y, const float* x, int64_t n, F f) {
  int64_t at = 0;
  for (; at + kLanes <= n; at += kLanes) store(y + at, f(load(y + at), load(x + at)));
  const int64_t rest = n - at;
  if (rest) store_first(y + at, rest, f(load_first(y + at, rest), load_first(x + at, rest)));
}

}  // namespace

void scale(float* x, int64_t n, float factor) {
  each_pair(x, x, n, [=](F32x16 v, F32x16) { return mul(v, set1(factor)); });
}

void add_scaled(float* y, const float* x, int64_t n, float factor) {
  each_pair(y, x, n, [=](F32x16 sum, F32x16 v) { return fma(set1(factor), v, sum); });
}

void sigmoid_gate(float* x, const float* gates, int64_t n, bool one_gate) {
  if (one_gate) {
    const F32x16 share = logistic(set1(*gates));
    each_pair(x, x, n, [=](F32x16 v, F32x16) { return mul(v, share); });
  } else {
    each_pair(x, gates, n, [](F32x16 v, F32x16 gate) { return mul(v, logistic(gate)); });
  }
}

void soft_cap(float* x, int64_t n, float cap) {
  each_pair(x, x, n, [=](F32x16 v, F32x16) { return capped(v, cap); });
}

void sigmoid(float* x, int64_t n) {
  each_pair(x, x, n, [](F32x16 v, F32x16) { return logistic(v); });
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
