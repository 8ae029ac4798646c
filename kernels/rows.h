// The kernels that work on rows of hidden states; table.cpp puts them into the table of a path.
#pragma once

#include "simd.h"

namespace gangline {
namespace GANGLINE_PATH {

void rms_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);
void layer_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y);
void rope(float* heads, int64_t n_heads, int64_t head_dim, int64_t half, const float* cos,
          const float* sin);
void append(const CacheRow& cache, int64_t position, const float* key, const float* value);
void attend(const CacheRow& cache, const AttentionRules& rules, const QueryRows& rows,
            const float* sinks, int64_t n_heads);
void gate(const float* gate, const float* up, int64_t n, Activation activation, float* out);
void scale(float* x, int64_t n, float factor);
void add_scaled(float* y, const float* x, int64_t n, float factor);
void sigmoid_gate(float* x, const float* gates, int64_t n, bool one_gate);
void soft_cap(float* x, int64_t n, float cap);
void sigmoid(float* x, int64_t n);
void softmax(float* x, int64_t n);
void convolve(const float* rows, const float* before, int64_t stride, int64_t n_rows, int64_t n,
              const float* weights, int64_t taps, float* out);
void unit(float* x, int64_t n, float length);
void delta_decay(float* x, int64_t n, const float* decay_log, const float* bias);
void delta_step(float* matrix, int64_t key_dim, int64_t value_dim, const float* query,
                const float* key, const float* value, float write, float keep, float* out);
float sum(const float* x, int64_t n);

}  // namespace GANGLINE_PATH
}  // namespace gangline
