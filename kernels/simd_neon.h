// F32x16 as four q registers; 64-bit Arm. See simd_scalar.h for the meaning.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace gangline {
namespace neon {

struct F32x16 {
  float32x4_t v[4];
};

constexpr int kTileN = 2;
constexpr int kTileT = 2;
constexpr int kTileNAlone = 4;

template <class F>
inline F32x16 each(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline F32x16 set1(float x) {
  return each([=](int) { return vdupq_n_f32(x); });
}
inline F32x16 zero() { return set1(0.0f); }
inline F32x16 load(const float* p) {
  return each([=](int i) { return vld1q_f32(p + 4 * i); });
}
inline F32x16 iota() {
  const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(lanes);
}
inline F32x16 load_f32(const uint8_t* p) {
  return each([=](int i) { return vreinterpretq_f32_u8(vld1q_u8(p + 16 * i)); });
}
inline void store(float* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F32x16 add(F32x16 a, F32x16 b) {
  return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F32x16 sub(F32x16 a, F32x16 b) {
  return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F32x16 mul(F32x16 a, F32x16 b) {
  return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F32x16 div(F32x16 a, F32x16 b) {
  return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  return each([&](int i) { return vfmsq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline F32x16 if_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
inline F32x16 power_of_two(F32x16 t) {
  return each([&](int i) {
    const uint32x4_t shifted = vshlq_n_u32(vreinterpretq_u32_f32(t.v[i]), 23);
    return vreinterpretq_f32_u32(vaddq_u32(shifted, vdupq_n_u32(0x3f800000u)));
  });
}

inline float reduce_add(F32x16 a) {
  const float32x4_t lo = vaddq_f32(a.v[0], a.v[2]), hi = vaddq_f32(a.v[1], a.v[3]);
  const float32x4_t s4 = vaddq_f32(lo, hi);
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

inline float32x4_t from_f16(const uint8_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
inline float one_f16(uint16_t h) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
inline F32x16 load_f16(const uint8_t* p) {
  return each([=](int i) { return from_f16(p + 8 * i); });
}
inline F32x16 load_bf16(const uint8_t* p) {
  return each([=](int i) {
    const uint16x4_t h = vreinterpret_u16_u8(vld1_u8(p + 8 * i));
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(h), 16));
  });
}

struct Affine8 {
  float32x4_t scale, offset;
  Affine8() = default;
  Affine8(float s, float o) : scale(vdupq_n_f32(s)), offset(vdupq_n_f32(o)) {}
  float32x4_t four(uint16x4_t q) const {
    return vfmaq_f32(offset, scale, vcvtq_f32_u32(vmovl_u16(q)));
  }
  F32x16 of(uint8x16_t bytes) const {
    const uint16x8_t lo = vmovl_u8(vget_low_u8(bytes)), hi = vmovl_u8(vget_high_u8(bytes));
    return {{four(vget_low_u16(lo)), four(vget_high_u16(lo)), four(vget_low_u16(hi)),
             four(vget_high_u16(hi))}};
  }
  F32x16 load16(const uint8_t* p) const { return of(vld1q_u8(p)); }
};
struct Affine4 : Affine8 {
  Affine4() = default;
  Affine4(float s, float o) : Affine8(s, o) {}
  F32x16 load16(const uint8_t* p) const {
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x8x2_t both = vzip_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    return of(vcombine_u8(both.val[0], both.val[1]));
  }
};

}  // namespace neon
}  // namespace gangline
