// The boundary between the vector code and everything else: plain pointers, sizes and strides.
//
// Every kernel exists once per path (scalar, AVX2, AVX-512, AMX, NEON) and gives the very same bits on
// each of them; see simd.h for the rules that make it so. Kernels never allocate, throw or start
// threads; a caller that has several threads gives each its own range of rows. Weights may lie at
// any address (they are read in place from a memory map); float buffers are aligned as floats.
#pragma once

#include <cstdint>

#include "rules.h"

namespace gangline {

enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu2, swiglu_clamped };

// A matrix (n, k) as it lies in a checkpoint, rows without gaps.
// bits == 0: dense numbers of `dtype`; `linear` takes only these. bits from 2 to 6, or 8: whole
// numbers q, a row being one stream of bits, lowest first, meaning scale * q + offset; scales and
// offsets are (n, k / group_size) of `dtype`, and k is a multiple of group_size (16, 32, 64 or 128).
struct Matrix {
  const uint8_t* data;
  const uint8_t* scales;
  const uint8_t* offsets;
  int64_t n;
  int64_t k;
  int32_t bits;
  int32_t group_size;
  Dtype dtype;
};

inline int64_t dtype_bytes(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }

// Bytes of one row of the matrix, without scales and offsets.
inline int64_t row_bytes(const Matrix& w) {
  return w.bits ? w.k * w.bits / 8 : w.k * dtype_bytes(w.dtype);
}

// A group-affine matrix (n, k) repacked into panels of 16 rows. A panel is its groups in order; a
// group is 16 scales, 16 offsets, then 64-byte vectors of codes (pack.cpp says in which order).
// Rows that fill up the last panel are never written out. Codes have 4 bits, or 8 if they need more.
struct Packed {
  const uint8_t* data;  // 64-byte aligned
  int64_t n;
  int64_t k;
  int32_t bits;
  int32_t group_size;
  Dtype dtype;

  int64_t n_panels() const { return (n + 15) / 16; }
  int64_t n_bytes() const { return n_panels() * panel_bytes(); }
  int64_t panel_bytes() const {
    return k / group_size * (32 * dtype_bytes(dtype) + int64_t{16} * group_size * bits / 8);
  }
};

// A group of a row of activations as signed bytes: number c is about factor * code[c]. A group with
// a NaN or an infinity has a factor of NaN.
struct GroupFactors {
  float factor;
  float sum_factor;  // factor * sum
  int32_t sum;       // of the codes
};

// Rows of activations (t, k) for packed matrices, block after block (see block_rows). The codes of
// a block of T rows are (k / c, T, c) and its factors (k / group_size, T); c is 4, or a tile's
// columns where the path has tiles and the block fills one.
struct QuantizedRows {
  const int8_t* codes;
  const GroupFactors* groups;
};

// One row of a block, to be written.
struct QuantizedRow {
  int8_t* codes;  // of the block
  GroupFactors* groups;
  int64_t rows;  // of the block
  int64_t row;
};

// Rows go through packed matrices in blocks of `most`, a power of two, and what is left in halves.
inline int64_t block_rows(int64_t rows_left, int64_t most) {
  while (most > rows_left) most /= 2;
  return most;
}

struct Kernels {
  const char* name;

  // y (t, first..last) = x (t, k) @ w (n, k).T for rows first <= n < last of w, plus bias[n] if
  // there is one; `add`: plus what y held. Strides are in floats; y points at column 0.
  void (*linear)(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
                 int64_t last, const float* bias, float* y, int64_t y_stride, bool add);

  // The same for a packed matrix, rows 16 first..16 last; x is quantized by groups of w's size.
  void (*linear_packed)(const QuantizedRows& x, int64_t t, const Packed& w, int64_t first,
                        int64_t last, const float* bias, float* y, int64_t y_stride, bool add);

  // The largest block of rows of x that linear_packed takes, at most 16.
  int64_t packed_rows;

  // One row x (k), group_size a multiple of 16.
  void (*quantize_row)(const float* x, int64_t k, int64_t group_size, const QuantizedRow& out);

  // y (k) = row `row` of a dense w as floats.
  void (*unpack_row)(const Matrix& w, int64_t row, float* y);

  // y (t, d) = x / sqrt(mean(x * x) + eps) * w, row by row; y may be x. layer_norm: of x - mean(x).
  void (*rms_norm)(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);
  void (*layer_norm)(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);

  // Rotate the first 2 * half numbers of n_heads heads of head_dim in place; cos and sin (half).
  void (*rope)(float* heads, int64_t n_heads, int64_t head_dim, int64_t half, const float* cos,
               const float* sin);

  // Write the key (head_dim) and the value (value_dim, unless shared) of one position.
  void (*append)(const CacheRow& cache, int64_t position, const float* key, const float* value);

  // out (n_heads, value_dim) = attention of n_heads queries (n_heads, head_dim) of one row at
  // `position`, all of one key/value head. sinks (n_heads) or null: one more score each.
  void (*attend)(const CacheRow& cache, const AttentionRules& rules, int64_t position,
                 const float* queries, const float* sinks, int64_t n_heads, float* out);

  // out (n) = activation(gate) * up, elementwise; out may be either of them.
  void (*gate)(const float* gate, const float* up, int64_t n, Activation activation, float* out);

  // Elementwise and in place, n numbers: x *= factor; y += factor * x, fused; x *= sigmoid(gates),
  // or sigmoid(*gates) for all of them; x = cap * tanh(x / cap); x = sigmoid(x).
  void (*scale)(float* x, int64_t n, float factor);
  void (*add_scaled)(float* y, const float* x, int64_t n, float factor);
  void (*sigmoid_gate)(float* x, const float* gates, int64_t n, bool one_gate);
  void (*soft_cap)(float* x, int64_t n, float cap);
  void (*sigmoid)(float* x, int64_t n);

  // x (n) = exp(x) / sum of exp(x), in place.
  void (*softmax)(float* x, int64_t n);

  // The parts of a gated delta rule (delta.h). out (n_rows, n) = silu of the convolution of rows
  // (n_rows, n) and the taps - 1 `before` them with weights (n, taps); rows are `stride` apart.
  void (*convolve)(const float* rows, const float* before, int64_t stride, int64_t n_rows,
                   int64_t n, const float* weights, int64_t taps, float* out);
  // x (n) *= length / sqrt(sum of squares + 1e-6); x = exp(-exp(decay_log) softplus(x + bias)).
  void (*unit)(float* x, int64_t n, float length);
  void (*delta_decay)(float* x, int64_t n, const float* decay_log, const float* bias);
  // S (key_dim, value_dim rounded up to 16) *= keep; S += key outer write * (value - key S); out
  // (value_dim) = query S.
  void (*delta_step)(float* matrix, int64_t key_dim, int64_t value_dim, const float* query,
                     const float* key, const float* value, float write, float keep, float* out);

  // The sum of n floats; only here to stream memory at full speed.
  float (*sum)(const float* x, int64_t n);
};

// One table per path; a path that this build does not have is not linked.
const Kernels& kernels_scalar();
const Kernels& kernels_avx2();
const Kernels& kernels_avxvnni();
const Kernels& kernels_avx512();
const Kernels& kernels_amx();
const Kernels& kernels_tile_model();
const Kernels& kernels_neon();
const Kernels& kernels_dotprod();
const Kernels& kernels_i8mm();

}  // namespace gangline
