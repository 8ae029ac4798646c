// F32x16 as one zmm register; needs AVX-512 F, BW, DQ and VL. See simd_scalar.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gangline {
namespace avx512 {

struct F32x16 {
  __m512 v;
};

constexpr int kTileN = 4;
constexpr int kTileT = 4;
constexpr int kTileNAlone = 4;

inline F32x16 zero() { return {_mm512_setzero_ps()}; }
inline F32x16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 iota() {
  return {_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
inline F32x16 load_f32(const uint8_t* p) { return {_mm512_loadu_ps(p)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
inline F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 if_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline F32x16 power_of_two(F32x16 t) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f800000)))};
}

inline float reduce_add(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

inline float one_f16(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
inline F32x16 load_f16(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline F32x16 load_bf16(const uint8_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}

// The 16 possible values of a group in one register: a number is an index into it.
struct Affine4 {
  __m512 table;
  Affine4() = default;
  Affine4(float scale, float offset)
      : table(_mm512_fmadd_ps(_mm512_set1_ps(scale), iota().v, _mm512_set1_ps(offset))) {}
  F32x16 load16(const uint8_t* p) const {
    // Bytes to 32-bit lanes, byte i / 2 for lane i, then the odd lanes' high halves down;
    // the permutation looks at the lowest 4 bits only.
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m512i pairs = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
    const __m512i shifts = _mm512_set1_epi64(0x0000000400000000);
    return {_mm512_permutexvar_ps(_mm512_srlv_epi32(pairs, shifts), table)};
  }
};
struct Affine8 {
  __m512 scale, offset;
  Affine8() = default;
  Affine8(float s, float o) : scale(_mm512_set1_ps(s)), offset(_mm512_set1_ps(o)) {}
  F32x16 load16(const uint8_t* p) const {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
    return {_mm512_fmadd_ps(scale, q, offset)};
  }
};

}  // namespace avx512
}  // namespace gangline
