// F32x16 as one zmm register; needs AVX-512 F, BW, DQ, VL and VNNI. See simd_scalar.h for the
// meaning. Compiled three times: the path `amx` has tiles besides (tiles_amx.h), `zen4` adds where it
// can instead of multiplying (winograd.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gangline {
namespace GANGLINE_PATH {

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

inline float reduce_max(F32x16 a) { return _mm512_reduce_max_ps(a.v); }

inline float one_f16(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
inline F32x16 load_f16(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline F32x16 load_bf16(const uint8_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}

inline void store_f16(uint8_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

constexpr int kSharedHeads = 4;  // heads of attention that are computed together

struct I32x16 {
  __m512i v;
};
inline I32x16 load_i32(const int32_t* p) { return {_mm512_load_si512(p)}; }
inline F32x16 to_float(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }

// Rounded to the nearest whole number, ties to even; |a| < 128.
inline void store_i8(int8_t* p, F32x16 a) {
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

struct Codes {
  __m512i v;
};
inline Codes load_codes(const uint8_t* p) { return {_mm512_load_si512(p)}; }
inline void store_codes(uint8_t* p, Codes a) { _mm512_store_si512(p, a.v); }
inline Codes low_nibbles(Codes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline Codes high_nibbles(Codes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
inline Codes spread(int32_t four) { return {_mm512_set1_epi32(four)}; }
inline Codes add(Codes a, Codes b) { return {_mm512_add_epi8(a.v, b.v)}; }
inline void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

inline void prefetch_far(const uint8_t* p) {  // not into the first cache
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1);
}

// VPDPBUSD multiplies unsigned by signed bytes and cannot overflow here, whatever the bits.
struct Dots {
  __m512i sum = _mm512_setzero_si512();
  void add(Codes w, int32_t x) {
    add(w, Codes{_mm512_set1_epi32(x)});
  }
  void add(Codes w, Codes x) {
#if defined(__GNUC__)  // which copies the sums of the intrinsic in every turn of a loop
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w.v), "v"(x.v));
#else
    sum = _mm512_dpbusd_epi32(sum, w.v, x.v);
#endif
  }
  void settle() {}
  I32x16 total() const { return {sum}; }
};
struct Dots4 : Dots {};
struct Dots8 : Dots {
  static constexpr int32_t kShift = 0;  // codes are taken as they are
};
inline I32x16 add(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32x16 sub(I32x16 a, I32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline void store_i32(int32_t* p, I32x16 a) { _mm512_store_si512(p, a.v); }
inline I32x16 set1_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }

// Rows of x that share a read of a panel, and panels that share a read of these rows: their whole
// and float sums take 24 of the 32 registers.
constexpr int kPackedRows = 6;
constexpr int kPackedPanels = 2;

}  // namespace GANGLINE_PATH
}  // namespace gangline
