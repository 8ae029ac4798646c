// F32x16 as two ymm registers; needs AVX2, FMA and F16C. See simd_scalar.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gangline {
namespace avx2 {

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

struct Affine8 {
  __m256 scale, offset;
  Affine8() = default;
  Affine8(float s, float o) : scale(_mm256_set1_ps(s)), offset(_mm256_set1_ps(o)) {}
  __m256 eight(__m128i bytes) const {
    return _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), offset);
  }
  F32x16 of(__m128i bytes) const { return {eight(bytes), eight(_mm_unpackhi_epi64(bytes, bytes))}; }
  F32x16 load16(const uint8_t* p) const {
    return of(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};
struct Affine4 : Affine8 {
  Affine4() = default;
  Affine4(float s, float o) : Affine8(s, o) {}
  F32x16 load16(const uint8_t* p) const {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
    return of(_mm_and_si128(both, _mm_set1_epi8(15)));
  }
};

}  // namespace avx2
}  // namespace gangline
