// F32x16 as an array: the path that runs everywhere, and the truth for the others.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if !defined(GANGLINE_PATH)
#define GANGLINE_PATH scalar  // included for its conversions alone
#endif

namespace gangline {
namespace GANGLINE_PATH {

struct F32x16 {
  float lane[16];
};

// Tile of linear: rows of the matrix and rows of x that are worked on together, and rows of the
// matrix for a single row of x.
constexpr int kTileN = 2;
constexpr int kTileT = 2;
constexpr int kTileNAlone = 2;

template <class F>
inline F32x16 each(F f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.lane[i] = f(i);
  return r;
}

inline uint32_t bits_of(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}

inline float float_of(uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

inline F32x16 zero() {
  return each([](int) { return 0.0f; });
}
inline F32x16 set1(float x) {
  return each([=](int) { return x; });
}
inline F32x16 iota() {
  return each([](int i) { return static_cast<float>(i); });
}
inline F32x16 load_f32(const uint8_t* p) {
  F32x16 r;
  std::memcpy(r.lane, p, sizeof r.lane);
  return r;
}
inline F32x16 load(const float* p) { return load_f32(reinterpret_cast<const uint8_t*>(p)); }
inline void store(float* p, const F32x16& a) { std::memcpy(p, a.lane, sizeof a.lane); }

inline F32x16 add(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline F32x16 sub(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline F32x16 mul(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline F32x16 div(const F32x16& a, const F32x16& b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c, rounded once.
inline F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
// c - a * b, rounded once.
inline F32x16 fnma(const F32x16& a, const F32x16& b, const F32x16& c) {
  return each([&](int i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
// a < b ? x : y per lane; false where one of them is a NaN.
inline F32x16 if_less(const F32x16& a, const F32x16& b, const F32x16& x, const F32x16& y) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i]; });
}
// 2^n, where t is n + 1.5 * 2^23 for a whole number -126 <= n <= 127.
inline F32x16 power_of_two(const F32x16& t) {
  return each([&](int i) { return float_of((bits_of(t.lane[i]) << 23) + 0x3f800000u); });
}

inline float reduce_add(const F32x16& a) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.lane[i] + a.lane[i + 8];
  for (int i = 0; i < 4; ++i) s[i] = s[i] + s[i + 4];
  for (int i = 0; i < 2; ++i) s[i] = s[i] + s[i + 2];
  return s[0] + s[1];
}

// The largest lane; no lane is a NaN.
inline float reduce_max(const F32x16& a) {
  float largest = a.lane[0];
  for (float x : a.lane)
    if (largest < x) largest = x;
  return largest;
}

inline float one_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u, fraction = h & 1023u;
  if (exponent == 31) {  // infinity or NaN; a signalling NaN becomes quiet as in hardware
    return float_of(sign | 0x7f800000u | (fraction << 13) | (fraction ? 0x400000u : 0u));
  }
  if (exponent == 0) {  // fraction * 2^-24, exact
    const float x = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    return sign ? -x : x;
  }
  return float_of(sign | ((exponent + 112) << 23) | (fraction << 13));
}
inline F32x16 load_f16(const uint8_t* p) {
  uint16_t h[16];
  std::memcpy(h, p, sizeof h);
  return each([&](int i) { return one_f16(h[i]); });
}
inline F32x16 load_bf16(const uint8_t* p) {
  uint16_t h[16];
  std::memcpy(h, p, sizeof h);
  return each([&](int i) { return float_of(static_cast<uint32_t>(h[i]) << 16); });
}

// To half precision, rounded to the nearest, ties to even.
inline uint16_t to_f16(float x) {
  const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((size >> 13) & 0x1ffu));
  if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and more
  if (size < 0x38800000u) {  // subnormal: adding 0.5 rounds to multiples of 2^-24
    const uint32_t rounded = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
    return static_cast<uint16_t>(sign | rounded);
  }
  const uint32_t rounded = size + 0xfffu + ((size >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}
inline void store_f16(uint8_t* p, const F32x16& a) {
  for (int i = 0; i < 16; ++i) {
    const uint16_t h = to_f16(a.lane[i]);
    std::memcpy(p + 2 * i, &h, 2);
  }
}

constexpr int kSharedHeads = 2;

struct I32x16 {
  int32_t lane[16];
};
template <class F>
inline I32x16 each_i32(F f) {
  I32x16 r;
  for (int i = 0; i < 16; ++i) r.lane[i] = f(i);
  return r;
}
inline I32x16 add(const I32x16& a, const I32x16& b) {
  return each_i32([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline I32x16 set1_i32(int32_t x) {
  return each_i32([=](int) { return x; });
}
inline I32x16 load_i32(const int32_t* p) {
  return each_i32([=](int i) { return p[i]; });
}
inline F32x16 to_float(const I32x16& a) {
  return each([&](int i) { return static_cast<float>(a.lane[i]); });
}
inline F32x16 abs(const F32x16& a) {
  return each([&](int i) { return float_of(bits_of(a.lane[i]) & 0x7fffffffu); });
}

// Rounded to the nearest whole number, ties to even; |a| < 128. Adding 1.5 * 2^23 rounds so.
inline void store_i8(int8_t* p, const F32x16& a) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t rounded = bits_of(a.lane[i] + 12582912.0f) - bits_of(12582912.0f);
    p[i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
  }
}

// 64 unsigned numbers of a panel: four consecutive columns of each of 16 rows.
struct Codes {
  uint8_t byte[64];
};
inline Codes load_codes(const uint8_t* p) {
  Codes r;
  std::memcpy(r.byte, p, 64);
  return r;
}
inline void store_codes(uint8_t* p, const Codes& a) { std::memcpy(p, a.byte, 64); }
inline Codes low_nibbles(const Codes& a) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] & 15;
  return r;
}
inline Codes high_nibbles(const Codes& a) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.byte[i] = a.byte[i] >> 4;
  return r;
}
inline void prefetch(const uint8_t*) {}

// Sums of products of codes with four signed bytes `x`, exact. `settle` is called at least after
// every eight `add`s, for paths that collect in 16 bits first. Where 8-bit codes are multiplied as
// (code - kShift), the caller adds kShift times the sum of the x.
struct Dots {
  I32x16 sum = set1_i32(0);
  void add(const Codes& w, int32_t x) {
    int8_t xs[4];
    std::memcpy(xs, &x, 4);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 4; ++j) sum.lane[i] += w.byte[4 * i + j] * xs[j];
  }
  void settle() {}
  I32x16 total() const { return sum; }
};
struct Dots4 : Dots {};
struct Dots8 : Dots {
  static constexpr int32_t kShift = 0;
};

constexpr int kPackedRows = 2;
constexpr int kPackedPanels = 1;

}  // namespace GANGLINE_PATH
}  // namespace gangline
