// The boundary between the vector code and everything else: plain pointers, sizes and strides.
//
// Every kernel exists once per path (scalar, AVX2, AVX-512, AMX, NEON) and gives the very same bits on
// each of them; see simd.h for the rules that make it so. Kernels never allocate, throw or start
// threads; a caller that has several threads gives each its own range of rows. Weights may lie at
// any address (they are read in place from a memory map); float buffers are aligned as floats.
#pragma once

#include <cstdint>

#include "matrices.h"
#include "rules.h"

namespace gangline {

enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu2, swiglu_clamped };

struct Kernels {
  const char* name;

  // y (t, first..last) = x (t, k) @ w (n, k).T for rows first <= n < last of w, plus bias[n] if
  // there is one; `add`: plus what y held. Strides are in floats; y points at column 0.
  void (*linear)(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
                 int64_t last, const float* bias, float* y, int64_t y_stride, bool add);

  // The same for a packed matrix, rows 16 first..16 last; x is quantized by groups of w's size.
  // `scratch`: packed_scratch(w, t) bytes, 64-byte aligned, or null where these are none.
  void (*linear_packed)(const QuantizedRows& x, int64_t t, const Packed& w, int64_t first,
                        int64_t last, const float* bias, float* y, int64_t y_stride, bool add,
                        uint8_t* scratch);
  int64_t (*packed_scratch)(const Packed& w, int64_t t);

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

  // Attention of n_heads queries of each row, all of one key/value head; at most kQueriesAtOnce
  // of them together. sinks (n_heads) or null: one more score each.
  void (*attend)(const CacheRow& cache, const AttentionRules& rules, const QueryRows& rows,
                 const float* sinks, int64_t n_heads);

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
const Kernels& kernels_zen4();
const Kernels& kernels_amx();
const Kernels& kernels_tile_model();
const Kernels& kernels_neon();
const Kernels& kernels_dotprod();
const Kernels& kernels_i8mm();

}  // namespace gangline
