// F32x16 as an array: the path that runs everywhere, and the truth for the others.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace gangline {
namespace scalar {

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

// 16 packed numbers of one group as floats: scale * q + offset, rounded once.
struct Affine4 {
  float scale, offset;
  Affine4() = default;
  Affine4(float s, float o) : scale(s), offset(o) {}
  F32x16 load16(const uint8_t* p) const {  // 8 bytes
    return each([&](int i) {
      const int q = (p[i / 2] >> (4 * (i % 2))) & 15;
      return std::fma(scale, static_cast<float>(q), offset);
    });
  }
};
struct Affine8 {
  float scale, offset;
  Affine8() = default;
  Affine8(float s, float o) : scale(s), offset(o) {}
  F32x16 load16(const uint8_t* p) const {  // 16 bytes
    return each([&](int i) { return std::fma(scale, static_cast<float>(p[i]), offset); });
  }
};

}  // namespace scalar
}  // namespace gangline
