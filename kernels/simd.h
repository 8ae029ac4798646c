// The one vector type of the kernels: 16 float lanes, and what may be done with them.
//
// The rules that give every path the same bits:
//   * element k of a sum goes to lane k mod 16, in order of k, by fused multiply-add;
//   * lanes are added by one tree: i + (i + 8), then + 4, + 2, + 1 (`reduce_add`);
//   * a tail is filled up with zeros to 16 lanes;
//   * everything else is elementwise, and each operation here is rounded once, as IEEE 754 says
//     (the compiler must not contract or reorder: no -ffast-math, -ffp-contract=off);
//   * exp and its kin are built from these operations, never from a mathematics library.
// NaNs stay NaNs; their sign and payload are not part of the promise.
//
// A kernel source is compiled once per path with GANGLINE_PATH naming its namespace. Nothing from
// the C++ library that might be emitted out of line may be used in them: the linker could keep an
// AVX-512 copy of it for everybody.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"

// For inner loops whose sums must stay in registers.
#if defined(_MSC_VER) && !defined(__clang__)
#define GANGLINE_INLINE __forceinline
#else
#define GANGLINE_INLINE inline __attribute__((always_inline))
#endif

#if defined(GANGLINE_PATH_AMX)
#define GANGLINE_PATH amx
#include "simd_avx512.h"
#include "tiles_amx.h"
#elif defined(GANGLINE_PATH_TILE_MODEL)
#define GANGLINE_PATH tile_model
#include "simd_scalar.h"
#include "tiles_model.h"
#elif defined(GANGLINE_PATH_ZEN4)
#define GANGLINE_PATH zen4
#define GANGLINE_WINOGRAD
#include "simd_avx512.h"
#elif defined(GANGLINE_PATH_AVX512)
#define GANGLINE_PATH avx512
#include "simd_avx512.h"
#elif defined(GANGLINE_PATH_AVXVNNI)
#define GANGLINE_PATH avxvnni
#include "simd_avx2.h"
#elif defined(GANGLINE_PATH_AVX2)
#define GANGLINE_PATH avx2
#include "simd_avx2.h"
#elif defined(GANGLINE_PATH_I8MM)
#define GANGLINE_PATH i8mm
#include "simd_neon.h"
#elif defined(GANGLINE_PATH_DOTPROD)
#define GANGLINE_PATH dotprod
#include "simd_neon.h"
#elif defined(GANGLINE_PATH_NEON)
#define GANGLINE_PATH neon
#include "simd_neon.h"
#else
#define GANGLINE_PATH scalar
#include "simd_scalar.h"
#endif

namespace gangline {
namespace GANGLINE_PATH {

constexpr int64_t kLanes = 16;

// The first n of 16 lanes, the rest zero; and the reverse.
inline F32x16 load_first(const float* x, int64_t n) {
  float lanes[kLanes] = {};
  std::memcpy(lanes, x, static_cast<size_t>(n) * sizeof(float));
  return load(lanes);
}

inline void store_first(float* y, int64_t n, F32x16 v) {
  float lanes[kLanes];
  store(lanes, v);
  std::memcpy(y, lanes, static_cast<size_t>(n) * sizeof(float));
}

// Numbers of a checkpoint, by dtype: 16 of them, or one, at any address.
template <Dtype D>
struct Numbers;

template <>
struct Numbers<Dtype::f32> {
  static constexpr int64_t bytes = 4;
  static F32x16 load16(const uint8_t* p) { return load_f32(p); }
  static void store16(uint8_t* p, F32x16 v) {
    float lanes[kLanes];
    store(lanes, v);
    std::memcpy(p, lanes, sizeof lanes);
  }
  static float one(const uint8_t* p) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
  }
};

template <>
struct Numbers<Dtype::f16> {
  static constexpr int64_t bytes = 2;
  static F32x16 load16(const uint8_t* p) { return load_f16(p); }
  static void store16(uint8_t* p, F32x16 v) { store_f16(p, v); }
  static float one(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return one_f16(bits);
  }
};

template <>
struct Numbers<Dtype::bf16> {
  static constexpr int64_t bytes = 2;
  static F32x16 load16(const uint8_t* p) { return load_bf16(p); }
  static float one(const uint8_t* p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
};

// The first n of 16 numbers, the rest zero.
template <Dtype D>
inline F32x16 numbers_first(const uint8_t* p, int64_t n) {
  uint8_t lanes[kLanes * 4] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n * Numbers<D>::bytes));
  return Numbers<D>::load16(lanes);
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
