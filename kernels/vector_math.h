// exp and the activation functions, from the operations of F32x16 alone: the same bits everywhere.
#pragma once

#include <cmath>

#include "simd.h"

namespace gangline {
namespace GANGLINE_PATH {

// e^x to about 1 unit in the last place; 0 below -87.33 and infinity above 88.37.
// Polynomial and splitting of ln 2: Cephes, expf.c (Moshier).
inline F32x16 exp(F32x16 x) {
  const F32x16 magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const F32x16 t = fma(x, set1(1.44269504088896341f), magic);
  const F32x16 n = sub(t, magic);
  F32x16 r = fnma(n, set1(0.693359375f), x);
  r = fnma(n, set1(-2.12194440e-4f), r);
  F32x16 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  F32x16 y = mul(p, power_of_two(t));
  y = if_less(x, set1(-87.33654022216797f), zero(), y);
  return if_less(set1(88.3762626647949f), x, set1(HUGE_VALF), y);
}

// 1 / (1 + e^-x)
inline F32x16 logistic(F32x16 x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

// tanh to about 2 units in the last place. Polynomial near zero: Cephes, tanhf.c (Moshier).
inline F32x16 tanh(F32x16 x) {
  const F32x16 size = abs(x), square = mul(x, x);
  F32x16 p = set1(-5.70498872745e-3f);
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  const F32x16 small = fma(mul(p, square), x, x);
  const F32x16 tail = div(set1(2.0f), add(exp(add(size, size)), set1(1.0f)));
  const F32x16 large = sub(set1(1.0f), tail);
  const F32x16 with_sign = if_less(x, zero(), sub(zero(), large), large);
  return if_less(size, set1(0.625f), small, with_sign);
}

// cap * tanh(x / cap)
inline F32x16 capped(F32x16 x, float cap) { return mul(set1(cap), tanh(div(x, set1(cap)))); }

// log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x| <= 1; log(1 + u) = 2 atanh(s), s = u / (2 + u):
// the series of atanh with s <= 1/3, cut off below 2e-9 of the sum.
inline F32x16 softplus(F32x16 x) {
  const F32x16 u = exp(sub(zero(), abs(x)));
  const F32x16 s = div(u, add(set1(2.0f), u)), square = mul(s, s);
  F32x16 p = set1(1.0f / 15);
  p = fma(p, square, set1(1.0f / 13));
  p = fma(p, square, set1(1.0f / 11));
  p = fma(p, square, set1(1.0f / 9));
  p = fma(p, square, set1(1.0f / 7));
  p = fma(p, square, set1(1.0f / 5));
  p = fma(p, square, set1(1.0f / 3));
  const F32x16 half = fma(mul(p, square), s, s);
  return add(if_less(x, zero(), zero(), x), add(half, half));
}

// 0.5 erfc(|x| / sqrt 2), the tail of the normal distribution; absolute error below 1e-7.
// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
inline F32x16 normal_tail(F32x16 absolute) {
  const F32x16 z = mul(absolute, set1(0.70710678118654752f));
  const F32x16 t = div(set1(1.0f), fma(z, set1(0.3275911f), set1(1.0f)));
  F32x16 p = set1(1.061405429f);
  p = fma(p, t, set1(-1.453152027f));
  p = fma(p, t, set1(1.421413741f));
  p = fma(p, t, set1(-0.284496736f));
  p = fma(p, t, set1(0.254829592f));
  return mul(mul(set1(0.5f), mul(p, t)), exp(sub(zero(), mul(z, z))));
}

template <Activation A>
inline F32x16 activate(F32x16 x) {
  if (A == Activation::relu2) {
    const F32x16 positive = if_less(x, zero(), zero(), x);
    return mul(positive, positive);
  }
  if (A == Activation::gelu) {
    const F32x16 negative = if_less(x, zero(), x, sub(zero(), x));
    const F32x16 tail = normal_tail(sub(zero(), negative));
    return if_less(x, zero(), mul(x, tail), fnma(x, tail, x));
  }
  if (A == Activation::gelu_tanh) {
    // 0.5 (1 + tanh u) = logistic(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3); arXiv 1606.08415.
    const F32x16 cubic = fma(mul(x, x), mul(x, set1(0.044715f)), x);
    return mul(x, logistic(mul(cubic, set1(1.5957691216057308f))));
  }
  return div(x, add(set1(1.0f), exp(sub(zero(), x))));  // silu
}

// activation(gate) * up
template <Activation A>
inline F32x16 gated(F32x16 gate, F32x16 up) {
  return mul(activate<A>(gate), up);
}

// gpt-oss's (its model.py, swiglu): gate at most 7, up within 7 of zero.
template <>
inline F32x16 gated<Activation::swiglu_clamped>(F32x16 gate, F32x16 up) {
  const F32x16 limit = set1(7.0f), lowest = set1(-7.0f);
  gate = if_less(limit, gate, limit, gate);
  up = if_less(limit, up, limit, up);
  up = if_less(up, lowest, lowest, up);
  const F32x16 swish = mul(gate, logistic(mul(gate, set1(1.702f))));
  return mul(swish, add(up, set1(1.0f)));
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
