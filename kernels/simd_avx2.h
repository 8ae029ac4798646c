// F32x16 as two ymm registers; needs AVX2, FMA and F16C. See simd_scalar.h for the meaning. Compiled
// twice: the path `avxvnni` has VPDPBUSD in its 256-bit form.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gangline {
namespace GANGLINE_PATH {

struct F32x16 {
  __m256 lo, hi;
};

constexpr int kTileN = 1;
constexpr int kTileT = 4;
constexpr int kTileNAlone = 4;

inline F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 iota() {
  return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F32x16 load_f32(const uint8_t* p) {
  const __m256i* words = reinterpret_cast<const __m256i*>(p);
  return {_mm256_castsi256_ps(_mm256_loadu_si256(words)),
          _mm256_castsi256_ps(_mm256_loadu_si256(words + 1))};
}
inline void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline F32x16 add(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F32x16 sub(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F32x16 mul(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F32x16 div(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 if_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline __m256 power_of_two(__m256 t) {
  const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3f800000)));
}
inline F32x16 power_of_two(F32x16 t) { return {power_of_two(t.lo), power_of_two(t.hi)}; }

inline float reduce_add(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

inline float reduce_max(F32x16 a) {
  const __m256 s8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}

inline float one_f16(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
inline F32x16 load_f16(const uint8_t* p) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
inline __m256 from_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
inline F32x16 load_bf16(const uint8_t* p) {
  const __m128i* halves = reinterpret_cast<const __m128i*>(p);
  return {from_bf16(_mm_loadu_si128(halves)), from_bf16(_mm_loadu_si128(halves + 1))};
}

inline void store_f16(uint8_t* p, F32x16 a) {
  __m128i* halves = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(halves, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}

constexpr int kSharedHeads = 2;

struct I32x16 {
  __m256i lo, hi;
};
inline F32x16 to_float(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline F32x16 abs(F32x16 a) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}
inline I32x16 add(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
inline I32x16 set1_i32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

inline void store_i8(int8_t* p, F32x16 a) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

struct Codes {
  __m256i lo, hi;
};
inline Codes load_codes(const uint8_t* p) {
  const __m256i* words = reinterpret_cast<const __m256i*>(p);
  return {_mm256_load_si256(words), _mm256_load_si256(words + 1)};
}
inline Codes low_nibbles(Codes a) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
inline Codes high_nibbles(Codes a) {
  return low_nibbles({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)});
}
inline void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

#if defined(GANGLINE_PATH_AVXVNNI)
// VPDPBUSD multiplies unsigned by signed bytes and cannot overflow here, whatever the bits.
struct Dots {
  __m256i lo = _mm256_setzero_si256(), hi = lo;
  void add(Codes w, int32_t x) {
    const __m256i xs = _mm256_set1_epi32(x);
    lo = _mm256_dpbusd_avx_epi32(lo, w.lo, xs);
    hi = _mm256_dpbusd_avx_epi32(hi, w.hi, xs);
  }
  void settle() {}
  I32x16 total() const { return {lo, hi}; }
};
struct Dots4 : Dots {};
struct Dots8 : Dots {
  static constexpr int32_t kShift = 0;
};
#else
// Pairs of products of 4-bit codes stay below 15 * 127 * 2 = 3810: eight of them fit 16 bits.
struct Dots4 {
  __m256i near_lo = _mm256_setzero_si256(), near_hi = near_lo;  // 16 bits
  __m256i lo = near_lo, hi = near_lo;
  void add(Codes w, int32_t x) {
    const __m256i xs = _mm256_set1_epi32(x);
    near_lo = _mm256_add_epi16(near_lo, _mm256_maddubs_epi16(w.lo, xs));
    near_hi = _mm256_add_epi16(near_hi, _mm256_maddubs_epi16(w.hi, xs));
  }
  void settle() {
    const __m256i ones = _mm256_set1_epi16(1);
    lo = _mm256_add_epi32(lo, _mm256_madd_epi16(near_lo, ones));
    hi = _mm256_add_epi32(hi, _mm256_madd_epi16(near_hi, ones));
    near_lo = near_hi = _mm256_setzero_si256();
  }
  I32x16 total() const { return {lo, hi}; }
};
// 8-bit codes minus 128 are signed; |w| * (x with w's sign) pairs stay below 128 * 127 * 2 < 2^15.
struct Dots8 {
  static constexpr int32_t kShift = 128;
  __m256i lo = _mm256_setzero_si256(), hi = lo;
  static __m256i products(__m256i w, __m256i xs) {
    const __m256i centred = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(xs, centred));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  void add(Codes w, int32_t x) {
    const __m256i xs = _mm256_set1_epi32(x);
    lo = _mm256_add_epi32(lo, products(w.lo, xs));
    hi = _mm256_add_epi32(hi, products(w.hi, xs));
  }
  void settle() {}
  I32x16 total() const { return {lo, hi}; }
};

#endif

constexpr int kPackedRows = 4;
constexpr int kPackedPanels = 1;

}  // namespace GANGLINE_PATH
}  // namespace gangline
