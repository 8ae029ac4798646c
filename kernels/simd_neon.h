// F32x16 as four q registers; 64-bit Arm. See simd_scalar.h for the meaning. Compiled three times:
// the path `dotprod` has the dot product instructions of Armv8.2, `i8mm` the matrix products of
// Armv8.6 besides.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace gangline {
namespace GANGLINE_PATH {

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

inline float reduce_max(F32x16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
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

inline void store_f16(uint8_t* p, F32x16 a) {
  for (int i = 0; i < 4; ++i) vst1_u8(p + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(a.v[i])));
}

constexpr int kSharedHeads = 2;

struct I32x16 {
  int32x4_t v[4];
};
inline I32x16 add(I32x16 a, I32x16 b) {
  for (int i = 0; i < 4; ++i) a.v[i] = vaddq_s32(a.v[i], b.v[i]);
  return a;
}
inline I32x16 set1_i32(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {{v, v, v, v}};
}
inline F32x16 to_float(I32x16 a) {
  return each([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
inline F32x16 abs(F32x16 a) {
  return each([&](int i) { return vabsq_f32(a.v[i]); });
}
inline void store_i8(int8_t* p, F32x16 a) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a.v[0])),
                                    vmovn_s32(vcvtnq_s32_f32(a.v[1])));
  const int16x8_t hi = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a.v[2])),
                                    vmovn_s32(vcvtnq_s32_f32(a.v[3])));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}

struct Codes {
  uint8x16_t v[4];
};
inline Codes load_codes(const uint8_t* p) {
  return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}
inline Codes low_nibbles(Codes a) {
  for (int i = 0; i < 4; ++i) a.v[i] = vandq_u8(a.v[i], vdupq_n_u8(15));
  return a;
}
inline Codes high_nibbles(Codes a) {
  for (int i = 0; i < 4; ++i) a.v[i] = vshrq_n_u8(a.v[i], 4);
  return a;
}
inline void prefetch(const uint8_t* p) { __builtin_prefetch(p); }

#if defined(GANGLINE_PATH_I8MM)
// USDOT multiplies unsigned by signed bytes: codes are taken as they are.
struct Dots {
  static constexpr int32_t kShift = 0;
  I32x16 sum = set1_i32(0);
  void add(Codes w, int32_t x) {
    const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(x));
    for (int i = 0; i < 4; ++i) sum.v[i] = vusdotq_s32(sum.v[i], w.v[i], xs);
  }
  void settle() {}
  I32x16 total() const { return sum; }
};
using Dots4 = Dots;
using Dots8 = Dots;

// Sums of a panel times T rows of x, an even number. USMMLA multiplies two rows of eight columns
// by two rows of eight: here rows 2 i and 2 i + 1 of the panel by rows 2 j and 2 j + 1 of x.
#define GANGLINE_PAIRS
template <int T>
struct PairProducts {
  int32x4_t sums[T / 2][8] = {};

  void add(const Codes (&near_codes)[1], const Codes (&far_codes)[1], const int8_t* x, int) {
    int8x16_t rows[T / 2];
    for (int j = 0; j < T / 2; ++j) {
      const int32x2_t near = vreinterpret_s32_s8(vld1_s8(x + 8 * j));
      const int32x2_t far = vreinterpret_s32_s8(vld1_s8(x + 4 * T + 8 * j));
      const int32x2x2_t both = vzip_s32(near, far);
      rows[j] = vreinterpretq_s8_s32(vcombine_s32(both.val[0], both.val[1]));
    }
    for (int i = 0; i < 4; ++i) {
      const uint32x4_t near = vreinterpretq_u32_u8(near_codes[0].v[i]);
      const uint32x4_t far = vreinterpretq_u32_u8(far_codes[0].v[i]);
      const uint8x16_t low = vreinterpretq_u8_u32(vzip1q_u32(near, far));
      const uint8x16_t high = vreinterpretq_u8_u32(vzip2q_u32(near, far));
      for (int j = 0; j < T / 2; ++j) {
        sums[j][2 * i] = vusmmlaq_s32(sums[j][2 * i], low, rows[j]);
        sums[j][2 * i + 1] = vusmmlaq_s32(sums[j][2 * i + 1], high, rows[j]);
      }
    }
  }
  void settle() {}
  I32x16 total(int, int t) const {
    const int32x4_t* pairs = sums[t / 2];
    I32x16 result;
    for (int i = 0; i < 4; ++i)
      result.v[i] = t % 2 ? vuzp2q_s32(pairs[2 * i], pairs[2 * i + 1])
                          : vuzp1q_s32(pairs[2 * i], pairs[2 * i + 1]);
    return result;
  }
};
#else
// Codes minus kShift are signed bytes.
template <int32_t Shift>
struct Dots {
  static constexpr int32_t kShift = Shift;
  I32x16 sum = set1_i32(0);
  void add(Codes w, int32_t x) {
    const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(x));
    for (int i = 0; i < 4; ++i) {
      const int8x16_t codes =
          vreinterpretq_s8_u8(Shift ? veorq_u8(w.v[i], vdupq_n_u8(Shift)) : w.v[i]);
#if defined(__ARM_FEATURE_DOTPROD)
      sum.v[i] = vdotq_s32(sum.v[i], codes, xs);
#else
      const int16x8_t lo = vmull_s8(vget_low_s8(codes), vget_low_s8(xs));
      const int16x8_t hi = vmull_s8(vget_high_s8(codes), vget_high_s8(xs));
      const int32x4_t pairs = vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi));
      sum.v[i] = vaddq_s32(sum.v[i], pairs);
#endif
    }
  }
  void settle() {}
  I32x16 total() const { return sum; }
};
using Dots4 = Dots<0>;
using Dots8 = Dots<128>;
#endif

constexpr int kPackedRows = 4;
constexpr int kPackedPanels = 1;

}  // namespace GANGLINE_PATH
}  // namespace gangline
