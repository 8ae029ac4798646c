// Products of 4-bit codes with half of the multiplications, after S. Winograd, "A New Algorithm for
// Inner Product", IEEE Transactions on Computers C-17 (1968). For two columns
//   x0 c0 + x1 c1 = (x0 + b) (x1 + a) - x0 x1 + 8 x0 - 120 x1 - a b,   a = c0 - 8, b = c1 + 120,
// where the last terms belong to x alone or to the matrix alone. With x from -120 to 120 and codes
// from 0 to 15 the first factor is an unsigned byte and the second a signed one, just. It pays
// where adding bytes does not take the place of a product: on AMD's Zen 4 and 5, which multiply on
// two of four vector pipes. With every column in a pair the adding pipes would be the fuller ones,
// so one column of four is multiplied as it is.
//
// Whole numbers stay exact: not a bit differs from the plain products.
#pragma once

#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {

// Columns come in steps of 32, eight vectors of four: vector i and i + 4 are a pair or a plain one.
constexpr int64_t kWinogradStep = 32;
constexpr int kWinogradOrder[4] = {0, 1, 3, 2};  // plain ones between the pairs, not in a row
constexpr int kPlain = 3;

// Fewer rows than this are not worth the writing out of the codes.
constexpr int64_t kWinogradRows = 5 * kPackedRows;

// The smallest block of them; what is smaller is multiplied as ever.
constexpr int64_t kWinogradBlock = 4;

template <class T>
GANGLINE_INLINE T plus(T a, T b) {
  return add(a, b);
}

// A group of P panels, written out once for many rows of x; its codes follow, as (size / 32, 4, P,
// 2, 16, 4).
template <int P>
struct WinogradGroup {
  alignas(64) int32_t start[P][kLanes];  // - a b of all pairs
  alignas(64) float scale[P][kLanes];
  alignas(64) float offset[P][kLanes];

  static int64_t bytes(int64_t size) {
    return static_cast<int64_t>(sizeof(WinogradGroup)) + size * kLanes * P;
  }
  uint8_t* codes() { return reinterpret_cast<uint8_t*>(this + 1); }
  const uint8_t* codes() const { return reinterpret_cast<const uint8_t*>(this + 1); }

  // The codes of panel p, as they are packed.
  void set_codes(int p, const uint8_t* from, int64_t size) {
    const Codes minus_8 = spread(static_cast<int32_t>(0xf8f8f8f8u)), plus_120 = spread(0x78787878);
    Dots own;
    uint8_t* to = codes() + p * 2 * 64;
    const auto columns = [&](int64_t i) {  // 4 i to 4 i + 3
      const int64_t half = size / 8;
      return i < half ? low_nibbles(load_codes(from + i * 64))
                      : high_nibbles(load_codes(from + (i - half) * 64));
    };
    for (int64_t step = 0; step < size / 4; step += kWinogradStep / 4) {
      for (int i : kWinogradOrder) {
        Codes first = columns(step + i), second = columns(step + i + 4);
        if (i != kPlain) {
          first = plus(first, minus_8);
          second = plus(second, plus_120);
          own.add(second, first);
        }
        store_codes(to, first);
        store_codes(to + 64, second);
        to += P * 2 * 64;
      }
    }
    store_i32(start[p], sub(set1_i32(0), own.total()));
  }
};

// What of x alone belongs to the pairs of a group: the sum of - x0 x1 + 8 x0 - 120 x1. x (Size), as
// floats: the numbers are whole and small.
template <int64_t Size>
int32_t winograd_sum(const F32x16 (&x)[Size / kLanes]) {
  F32x16 sums = zero();
  for (int64_t i = 0; i + 1 < Size / kLanes; i += 2)
    sums = add(sums, fnma(add(x[i], set1(120.0f)), x[i + 1], mul(x[i], set1(8.0f))));
  const F32x16 paired = if_less(iota(), set1(4.0f * kPlain), sums, zero());
  return static_cast<int32_t>(reduce_add(paired));
}

// The whole numbers of one group: P panels times T rows of x, whose columns lie as (k / 4, T, 4).
template <int T, int P>
struct WinogradProducts {
  Dots dots[P][T];

  GANGLINE_INLINE void run(const WinogradGroup<P>& group, const int8_t* x,
                           const GroupFactors* factors, int64_t size) {
    for (int p = 0; p < P; ++p) {
      const I32x16 start = load_i32(group.start[p]);
      for (int t = 0; t < T; ++t) dots[p][t].sum = plus(start, set1_i32(factors[t].pairs)).v;
    }
    const uint8_t* codes = group.codes();
    for (int64_t step = 0; step < size; step += kWinogradStep) {
      add<0>(codes, x);
      add<1>(codes, x);
      add<2>(codes, x);
      add<3>(codes, x);
      codes += 4 * P * 2 * 64;
      x += kWinogradStep * T;
    }
  }

 private:
  template <int At>
  GANGLINE_INLINE void add(const uint8_t* codes, const int8_t* x) {
    constexpr int i = kWinogradOrder[At];
    if constexpr (i == kPlain)
      add_plain(codes + At * P * 2 * 64, x + i * 4 * T);
    else
      add_pairs(codes + At * P * 2 * 64, x + i * 4 * T);
  }
  GANGLINE_INLINE void add_pairs(const uint8_t* codes, const int8_t* x) {
    Codes first[P], second[P];
    load(codes, first, second);
    for (int t = 0; t < T; ++t) {
      const Codes x0 = spread(word(x + 4 * t)), x1 = spread(word(x + 4 * t + 16 * T));
      for (int p = 0; p < P; ++p) dots[p][t].add(plus(x0, second[p]), plus(x1, first[p]));
    }
  }
  GANGLINE_INLINE void add_plain(const uint8_t* codes, const int8_t* x) {
    Codes first[P], second[P];
    load(codes, first, second);
    for (int t = 0; t < T; ++t) {
      const Codes x0 = spread(word(x + 4 * t)), x1 = spread(word(x + 4 * t + 16 * T));
      for (int p = 0; p < P; ++p) dots[p][t].add(first[p], x0);
      for (int p = 0; p < P; ++p) dots[p][t].add(second[p], x1);
    }
  }
  static GANGLINE_INLINE void load(const uint8_t* codes, Codes (&first)[P], Codes (&second)[P]) {
    for (int p = 0; p < P; ++p) {
      first[p] = load_codes(codes + p * 2 * 64);
      second[p] = load_codes(codes + p * 2 * 64 + 64);
    }
  }
};

}  // namespace GANGLINE_PATH
}  // namespace gangline
