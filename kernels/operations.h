// The operations of the cpu back end: kernels spread over the threads. No Python here.
//
// Shapes are checked by the caller (binding.cpp); t is the number of rows of a step.
#pragma once

#include <cstdint>
#include <stdexcept>
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

  void append(const Part& part) {
    const int64_t columns = part.is_packed() ? part.packed.k : part.dense.k;
    if (!parts.empty() && columns != k)
      throw std::invalid_argument("stacked matrices have different numbers of columns");
    parts.push_back(part);
    n += part.n();
    k = columns;
  }
};

// A guess of the nanoseconds that t rows times a part take on one thread.
double part_ns(const Part& part, int64_t k, int64_t t);

// y (t, n) = x (t, k) @ w.T + bias (null: none); `add`: plus what y held.
void linear(const float* x, int64_t t, const Weight& w, const float* bias, float* y, bool add);

// y (t, heads * n) = x (t, heads * w.k): head h is multiplied with rows h * n .. of the dense w.
void linear_heads(const float* x, int64_t t, const Matrix& w, int64_t n_heads, float* y);

// y (t, k) = scale * rows ids (t) of the table, as it lies in the checkpoint, or packed.
void embed(const Matrix& table, const int32_t* ids, int64_t t, float scale, float* y);
void embed(const Packed& table, const int32_t* ids, int64_t t, float scale, float* y);

enum class Norm : uint8_t { rms, layer };
void norm(Norm kind, const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);

// In place, n numbers: y += scale * x, fused; x = cap * tanh(x / cap).
void add_scaled(float* y, const float* x, int64_t n, float scale);
void soft_cap(float* x, int64_t n, float cap);
// x (t, d) *= sigmoid(gates), (t, d) or (t, 1).
void sigmoid_gate(float* x, const float* gates, int64_t t, int64_t d, bool one_gate);

// How a row of queries, keys and values is laid out; values follow the heads that rotate.
struct FusedRows {
  int64_t n_heads, n_kv_heads, head_dim;
  int64_t width;
  int64_t n_rotated() const { return n_heads + n_kv_heads; }
};

// A norm's weight: one for `each` head, or one for all heads as one row.
struct HeadWeight {
  const float* numbers;
  bool each;
};

// RMS norm of the queries and keys of qkv (t, width), in place.
void head_norm(float* qkv, int64_t t, const FusedRows& rows, const HeadWeight& q,
               const HeadWeight& k, float eps);

// RMS norm of each head of x (t, n_heads * head_dim), times silu(gates), in place.
void gated_norm(float* x, const float* gates, int64_t t, int64_t n_heads, int64_t head_dim,
                const float* w, float eps);

// Rotate the first 2 half numbers of queries and keys; table (context, 2, half).
void rope(float* qkv, const FusedRows& rows, const float* table, int64_t half, const Batch& batch);

// Append keys and values of qkv to the cache, then out (t, n_heads * value_dim); sinks (n_heads) or
// null.
void attend(const float* qkv, const FusedRows& rows, const Cache& cache, const Batch& batch,
            const AttentionRules& rules, const float* sinks, float* out);

// y (t, n) = down(activation(gate(x)) * up(x)); gate_up has gate rows, then up rows; `add`: plus what
// y held.
void gated_mlp(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
               const Weight& down, const float* down_bias, Activation activation, float* y,
               bool add);

// Bytes per second of streaming reads of `bytes` of memory by `n_threads`, for about `seconds`.
double read_bandwidth(int64_t bytes, int n_threads, double seconds);

}  // namespace gangline
