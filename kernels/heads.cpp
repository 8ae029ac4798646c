// What is done to the heads of fused rows (queries, keys, values), spread over the threads.
#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "operations.h"
#include "pool.h"

namespace gangline {
namespace {

// Query heads of one key head that one thread does together; more of them are dealt out.
constexpr int64_t kHeadsPerItem = 8;

// Norm `n_heads` heads of head_dim in place: each by itself, or all as one row, as w is long.
void norm_heads(float* heads, int64_t n_heads, int64_t head_dim, const float* w, bool each,
                float eps) {
  const int64_t width = each ? head_dim : n_heads * head_dim;
  kernels().rms_norm(heads, each ? n_heads : 1, width, w, eps, heads);
}

// Rows first... of a step, n of them, at neighbouring positions of a slot.
struct RowRange {
  int64_t slot, position, first, n;
};

// The rows of each sequence, at most `most` together.
std::vector<RowRange> row_ranges(const Batch& batch, int64_t most) {
  std::vector<RowRange> ranges;
  for (const Sequence& sequence : batch.sequences)
    for (int64_t j = 0; j < sequence.count; j += most)
      ranges.push_back({sequence.slot, sequence.start + j, sequence.first_row + j,
                        std::min(most, sequence.count - j)});
  return ranges;
}

}  // namespace

void head_norm(float* qkv, int64_t t, const FusedRows& rows, const HeadWeight& q,
               const HeadWeight& k, float eps) {
  const double ns = static_cast<double>(t * rows.n_rotated() * rows.head_dim) / 4.0;
  parallel_for(t, ns, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* heads = qkv + row * rows.width;
      norm_heads(heads, rows.n_heads, rows.head_dim, q.numbers, q.each, eps);
      norm_heads(heads + rows.n_heads * rows.head_dim, rows.n_kv_heads, rows.head_dim, k.numbers,
                 k.each, eps);
    }
  });
}

void gated_norm(float* x, const float* gates, int64_t t, int64_t n_heads, int64_t head_dim,
                const float* w, float eps) {
  const Kernels& run = kernels();
  const int64_t width = n_heads * head_dim;
  parallel_for(t, static_cast<double>(t * width), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      float* heads = x + row * width;
      run.rms_norm(heads, n_heads, head_dim, w, eps, heads);
      run.gate(gates + row * width, heads, width, Activation::silu, heads);
    }
  });
}

void rope(float* qkv, const FusedRows& rows, const float* table, int64_t half, const Batch& batch) {
  const Kernels& run = kernels();
  const double ns = static_cast<double>(batch.rows() * rows.n_rotated() * half) / 2.0;
  parallel_for(batch.rows(), ns, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* cos = table + batch.row_positions[static_cast<size_t>(row)] * 2 * half;
      run.rope(qkv + row * rows.width, rows.n_rotated(), rows.head_dim, half, cos, cos + half);
    }
  });
}

void attend(const float* qkv, const FusedRows& rows, const Cache& cache, const Batch& batch,
            const AttentionRules& rules, const float* sinks, float* out) {
  const Kernels& run = kernels();
  const int64_t t = batch.rows(), n_kv = cache.n_kv_heads, n_heads = rows.n_heads;
  const int64_t head_dim = cache.head_dim, value_dim = cache.value_dim, group = n_heads / n_kv;
  double seen = 0;
  for (int64_t position : batch.row_positions)
    seen += static_cast<double>(position + 1 - rules.first_visible(position));
  const double append_ns = static_cast<double>(t * n_kv * head_dim) * 2.0;
  const double attend_ns = seen * static_cast<double>(n_heads * (head_dim + value_dim)) / 16.0;

  // 1. All keys and values into the cache: a row sees the rows before it in this very step.
  parallel_for(t * n_kv, append_ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const size_t row = static_cast<size_t>(item / n_kv);
      const int64_t kv = item % n_kv;
      const float* keys = qkv + static_cast<int64_t>(row) * rows.width + n_heads * head_dim;
      run.append(cache.row(batch.row_slots[row], kv), batch.row_positions[row],
                 keys + kv * head_dim, keys + n_kv * head_dim + kv * value_dim);
    }
  });
  // 2. Rows of one slot and head next to each other: they read the same part of the cache.
  const int64_t parts = (group + kHeadsPerItem - 1) / kHeadsPerItem;
  const int64_t rows_at_once = kQueriesAtOnce / std::min(group, kHeadsPerItem);
  const std::vector<RowRange> ranges = row_ranges(batch, rows_at_once);
  const int64_t n_ranges = static_cast<int64_t>(ranges.size());
  parallel_for(n_kv * parts * n_ranges, attend_ns, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const int64_t kv = item / (parts * n_ranges), part = item / n_ranges % parts;
      const RowRange& range = ranges[static_cast<size_t>(item % n_ranges)];
      const int64_t head = kv * group + part * kHeadsPerItem;
      const int64_t n = std::min(kHeadsPerItem, group - part * kHeadsPerItem);
      const QueryRows queries = {range.position,
                                 range.n,
                                 qkv + range.first * rows.width + head * head_dim,
                                 rows.width,
                                 out + (range.first * n_heads + head) * value_dim,
                                 n_heads * value_dim};
      run.attend(cache.row(range.slot, kv), rules, queries, sinks ? sinks + head : nullptr, n);
    }
  });
}

}  // namespace gangline
