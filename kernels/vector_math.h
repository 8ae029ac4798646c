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

}  // namespace GANGLINE_PATH
}  // namespace gangline
