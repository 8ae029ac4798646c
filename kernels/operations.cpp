#include "operations.h"

#include <algorithm>

#include "dispatch.h"
#include "pool.h"

namespace gangline {
namespace {

// What one thread does in a nanosecond, roughly: only decides when threads are worth waking.
constexpr double kBytesPerNs = 25.0;
constexpr double kMultiplyAddsPerNs = 25.0;

double linear_ns(const Weight& w, int64_t t) {
  double bytes = 0;
  for (const Matrix& part : w.parts)
    bytes += static_cast<double>(part.n) * static_cast<double>(row_bytes(part));
  const double work = static_cast<double>(w.n) * static_cast<double>(w.k) * static_cast<double>(t);
  return std::max(bytes / kBytesPerNs, work / kMultiplyAddsPerNs);
}

// Rows first..last of the stacked weight into columns first..last of y (t, n).
void linear_range(const Kernels& run, const float* x, int64_t t, const Weight& w, int64_t first,
                  int64_t last, const float* bias, float* y, int64_t y_stride, bool add) {
  int64_t start = 0;  // of this part within the stack
  for (const Matrix& part : w.parts) {
    const int64_t begin = std::max(first, start) - start;
    const int64_t end = std::min(last, start + part.n) - start;
    if (begin < end)
      run.linear(x, w.k, t, part, begin, end, bias ? bias + start : nullptr, y + start, y_stride,
                 add);
    start += part.n;
  }
}

}  // namespace

void linear(const float* x, int64_t t, const Weight& w, const float* bias, float* y, bool add) {
  const Kernels& run = kernels();
  parallel_for(w.n, linear_ns(w, t), [&](int64_t first, int64_t last) {
    linear_range(run, x, t, w, first, last, bias, y, w.n, add);
  });
}

void embed(const Weight& table, const int32_t* ids, int64_t t, float* y) {
  const Kernels& run = kernels();
  for (int64_t row = 0; row < t; ++row) {
    int64_t id = ids[row];
    for (const Matrix& part : table.parts) {
      if (id < part.n) {
        run.unpack_row(part, id, y + row * table.k);
        break;
      }
      id -= part.n;
    }
  }
}

void rms_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y) {
  const Kernels& run = kernels();
  const double ns = static_cast<double>(t) * static_cast<double>(d) / 4.0;
  parallel_for(t, ns, [&](int64_t first, int64_t last) {
    run.rms_norm(x + first * d, last - first, d, w, eps, y + first * d);
  });
}

void rope(float* qkv, const float* table, int64_t half, const Batch& batch, int64_t n_heads,
          int64_t n_kv_heads) {
  const Kernels& run = kernels();
  const int64_t stride = (n_heads + 2 * n_kv_heads) * 2 * half;
  const double ns = static_cast<double>(batch.rows() * stride) / 4.0;
  parallel_for(batch.rows(), ns, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* cos = table + batch.row_positions[static_cast<size_t>(row)] * 2 * half;
      run.rope(qkv + row * stride, n_heads + n_kv_heads, half, cos, cos + half);
    }
  });
}

void attend(const float* qkv, const Cache& cache, const Batch& batch, int64_t n_heads, float scale,
            float* out) {
  const Kernels& run = kernels();
  const int64_t t = batch.rows(), n_kv = cache.n_kv_heads, dim = cache.head_dim;
  const int64_t group = n_heads / n_kv, stride = (n_heads + 2 * n_kv) * dim;
  const int64_t n_items = t * n_kv;
  double read = 0;
  for (int64_t position : batch.row_positions) read += static_cast<double>(position + 1);
  const double append_ns = static_cast<double>(n_items * dim) * 2.0;
  const double attend_ns = read * static_cast<double>(n_heads * dim) / 8.0;

  // 1. All keys and values into the cache: a row sees the rows before it in this very step.
  parallel_for(n_items, append_ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const size_t row = static_cast<size_t>(item / n_kv);
      const int64_t kv = item % n_kv;
      const float* key = qkv + static_cast<int64_t>(row) * stride + (n_heads + kv) * dim;
      run.append(cache.row(batch.row_slots[row], kv), batch.row_positions[row], key,
                 key + n_kv * dim);
    }
  });
  // 2. Rows of one slot and head next to each other: they read the same part of the cache.
  parallel_for(n_items, attend_ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t kv = item / t;
      const int64_t row = item % t;
      const size_t r = static_cast<size_t>(row);
      run.attend(cache.row(batch.row_slots[r], kv), batch.row_positions[r],
                 qkv + row * stride + kv * group * dim, group, scale,
                 out + (row * n_heads + kv * group) * dim);
    }
  });
}

void gated_mlp(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
               const Weight& down, const float* down_bias, Activation activation, float* residual) {
  const Kernels& run = kernels();
  const int64_t ffn = down.k;
  // Grows to the largest step of this thread and is kept.
  thread_local std::vector<float> scratch;
  scratch.resize(std::max(scratch.size(), static_cast<size_t>(t * 3 * ffn)));
  float* both = scratch.data();                  // (t, 2 ffn): gate, up
  float* hidden = scratch.data() + t * 2 * ffn;  // (t, ffn)
  // The thread that has a range of gates computes the same range of ups, and joins them.
  parallel_for(ffn, linear_ns(gate_up, t), [&](int64_t first, int64_t last) {
    linear_range(run, x, t, gate_up, first, last, gate_up_bias, both, 2 * ffn, false);
    linear_range(run, x, t, gate_up, ffn + first, ffn + last, gate_up_bias, both, 2 * ffn, false);
    for (int64_t row = 0; row < t; ++row) {
      const float* gates = both + row * 2 * ffn;
      run.gate(gates + first, gates + ffn + first, last - first, activation,
               hidden + row * ffn + first);
    }
  });
  linear(hidden, t, down, down_bias, residual, true);
}

}  // namespace gangline
