#include "operations.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"
#include "pool.h"

namespace gangline {
namespace {

// What one thread does in a nanosecond, roughly: only decides when threads are worth waking.
constexpr double kBytesPerNs = 25.0;
constexpr double kMultiplyAddsPerNs = 25.0;
constexpr double kPackedMultiplyAddsPerNs = 100.0;

// Rows of a weight are dealt out to threads in units of a panel.
constexpr int64_t kUnit = 16;

// Rows of activations for packed weights; the memory grows to the largest step and is kept.
class RowQuantizer {
 public:
  // Quantize x (t, k) by groups of group_size, on all threads.
  void set(const float* x, int64_t t, int64_t k, int64_t group_size) {
    const int64_t n_groups = k / group_size;
    grow(codes_, t * k);
    grow(groups_, t * n_groups);
    const Kernels& run = kernels();
    const int64_t n_blocks = (t + run.packed_rows - 1) / run.packed_rows;
    const double ns = static_cast<double>(t) * static_cast<double>(k) / 8.0;
    parallel_for(n_blocks, ns, [&](int64_t first, int64_t last) {
      const int64_t end = std::min(last * run.packed_rows, t);
      for (int64_t start = first * run.packed_rows; start < end;) {
        const int64_t rows = block_rows(end - start, run.packed_rows);
        for (int64_t row = 0; row < rows; ++row)
          run.quantize_row(x + (start + row) * k, k, group_size,
                           {codes_.data() + start * k, groups_.data() + start * n_groups, rows,
                            row});
        start += rows;
      }
    });
  }
  QuantizedRows rows() const { return {codes_.data(), groups_.data()}; }

 private:
  template <class T>
  static void grow(std::vector<T>& memory, int64_t n) {
    if (memory.size() < static_cast<size_t>(n)) memory.resize(static_cast<size_t>(n));
  }

  std::vector<int8_t> codes_;
  std::vector<GroupFactors> groups_;
};

double part_ns(const Part& part, int64_t k, int64_t t) {
  const double bytes = static_cast<double>(part.n_bytes());
  const double work = static_cast<double>(part.n()) * static_cast<double>(k) *
                      static_cast<double>(t);
  const double speed = part.is_packed() ? kPackedMultiplyAddsPerNs : kMultiplyAddsPerNs;
  return std::max(bytes / kBytesPerNs, work / speed);
}

// Parts first_part..last_part of w; rows are x quantized for those of them that are packed. Column
// `start` of y (t, w.n) is the first. Units of all parts are dealt out at once: no thread waits for
// the end of a part.
void linear_parts(const float* x, int64_t t, const Weight& w, size_t first_part, size_t last_part,
                  int64_t start, const RowQuantizer& rows, const float* bias, float* y, bool add) {
  const Kernels& run = kernels();
  const auto units_of = [](const Part& part) { return (part.n() + kUnit - 1) / kUnit; };
  int64_t n_units = 0;
  double ns = 0;
  for (size_t i = first_part; i < last_part; ++i) {
    n_units += units_of(w.parts[i]);
    ns += part_ns(w.parts[i], w.k, t);
  }
  parallel_for(n_units, ns, [&](int64_t first, int64_t last) {
    int64_t column = start;
    for (size_t i = first_part; i < last_part && last > 0; ++i) {
      const Part& part = w.parts[i];
      const int64_t n = part.n(), units = units_of(part), end = std::min(last, units);
      if (first < end) {
        const float* added = bias ? bias + column : nullptr;
        if (part.is_packed())
          run.linear_packed(rows.rows(), t, part.packed, first, end, added, y + column, w.n, add);
        else
          run.linear(x, w.k, t, part.dense, first * kUnit, std::min(end * kUnit, n), added,
                     y + column, w.n, add);
      }
      column += n;
      first = std::max<int64_t>(first - units, 0);
      last -= units;
    }
  });
}

}  // namespace

void linear(const float* x, int64_t t, const Weight& w, const float* bias, float* y, bool add) {
  thread_local RowQuantizer rows;
  const size_t n_parts = w.parts.size();
  int64_t start = 0;
  for (size_t first = 0, last = 0; first < n_parts; first = last) {
    // As many parts as quantize x alike, or not at all.
    int64_t group_size = 0, columns = 0;
    for (; last < n_parts; ++last) {
      const Part& part = w.parts[last];
      if (part.is_packed()) {
        if (group_size && group_size != part.packed.group_size) break;
        group_size = part.packed.group_size;
      }
      columns += part.n();
    }
    if (group_size) rows.set(x, t, w.k, group_size);
    linear_parts(x, t, w, first, last, start, rows, bias, y, add);
    start += columns;
  }
}

void embed(const Matrix& table, const int32_t* ids, int64_t t, float* y) {
  const Kernels& run = kernels();
  const auto unpack = table.bits ? unpack_quantized : run.unpack_row;
  for (int64_t row = 0; row < t; ++row) unpack(table, ids[row], y + row * table.k);
}

void embed(const Packed& table, const int32_t* ids, int64_t t, float* y) {
  for (int64_t row = 0; row < t; ++row) unpack_packed(table, ids[row], y + row * table.k);
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

namespace {

// Rows that go through gate, up and down together: enough to read weights seldom, few enough that
// what lies between stays in the cache.
constexpr int64_t kMlpRows = 128;

void mlp_rows(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
              const Weight& down, const float* down_bias, Activation activation,
              float* residual) {
  const Kernels& run = kernels();
  const int64_t ffn = down.k;
  // Grows to the most rows of this thread and is kept.
  thread_local std::vector<float> scratch;
  scratch.resize(std::max(scratch.size(), static_cast<size_t>(t * 3 * ffn)));
  float* both = scratch.data();                  // (t, 2 ffn): gate, up
  float* hidden = scratch.data() + t * 2 * ffn;  // (t, ffn)
  linear(x, t, gate_up, gate_up_bias, both, false);
  // Units of 64 numbers of one row; elementwise, so how they are cut changes nothing.
  const int64_t per_row = (ffn + 63) / 64;
  parallel_for(t * per_row, static_cast<double>(t * ffn), [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t row = unit / per_row, at = unit % per_row * 64;
      const float* gates = both + row * 2 * ffn;
      run.gate(gates + at, gates + ffn + at, std::min<int64_t>(64, ffn - at), activation,
               hidden + row * ffn + at);
    }
  });
  linear(hidden, t, down, down_bias, residual, true);
}

}  // namespace

void gated_mlp(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
               const Weight& down, const float* down_bias, Activation activation,
               float* residual) {
  for (int64_t row = 0; row < t; row += kMlpRows)
    mlp_rows(x + row * gate_up.k, std::min(kMlpRows, t - row), gate_up, gate_up_bias, down,
             down_bias, activation, residual + row * down.n);
}

}  // namespace gangline
