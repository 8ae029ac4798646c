// The operations of the cpu back end: kernels spread over the threads. No Python here.
//
// Shapes are checked by the caller (binding.cpp); t is the number of rows of a step.
#pragma once

#include <cstdint>
#include <vector>

#include "cache.h"
#include "kernels.h"
#include "pack.h"

namespace gangline {

// One matrix of a weight: dense, read where it lies, or packed, in memory of its own.
struct Part {
  Matrix dense{};
  Packed packed{};
  std::shared_ptr<PackedMemory> memory;

  bool is_packed() const { return memory != nullptr; }
  int64_t n() const { return is_packed() ? packed.n : dense.n; }
  // Bytes that a product reads.
  int64_t n_bytes() const {
    return is_packed() ? packed.n_panels() * packed.panel_bytes() : dense.n * row_bytes(dense);
  }
};

// A weight is one or more matrices of equal k, stacked along n; nothing is copied to stack them.
struct Weight {
  std::vector<Part> parts;
  int64_t n = 0;
  int64_t k = 0;
};

// y (t, n) = x (t, k) @ w.T + bias (null: none); `add`: plus what y held.
void linear(const float* x, int64_t t, const Weight& w, const float* bias, float* y, bool add);

// y (t, k) = rows ids (t) of the table, as it lies in the checkpoint, or packed.
void embed(const Matrix& table, const int32_t* ids, int64_t t, float* y);
void embed(const Packed& table, const int32_t* ids, int64_t t, float* y);

void rms_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);

// qkv (t, n_heads + 2 n_kv_heads, 2 half): rotate queries and keys; table (context, 2, half).
void rope(float* qkv, const float* table, int64_t half, const Batch& batch, int64_t n_heads,
          int64_t n_kv_heads);

// Append keys and values of qkv to the cache, then out (t, n_heads * head_dim).
void attend(const float* qkv, const Cache& cache, const Batch& batch, int64_t n_heads, float scale,
            float* out);

// residual (t, n) += down(activation(gate(x)) * up(x)); gate_up has gate rows, then up rows.
void gated_mlp(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
               const Weight& down, const float* down_bias, Activation activation, float* residual);

// Bytes per second of streaming reads of `bytes` of memory by `n_threads`, for about `seconds`.
double read_bandwidth(int64_t bytes, int n_threads, double seconds);

}  // namespace gangline
