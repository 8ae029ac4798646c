#include "operations.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

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
  // Room for t rows of k numbers in groups of group_size.
  void reserve(int64_t t, int64_t k, int64_t group_size) {
    k_ = k;
    group_size_ = group_size;
    grown(codes_, t * k);
    grown(groups_, t * (k / group_size));
  }

  // Quantize x (t, k) by groups of group_size, on all threads.
  void set(const float* x, int64_t t, int64_t k, int64_t group_size) {
    reserve(t, k, group_size);
    const int64_t at_once = kernels().packed_rows, n_blocks = (t + at_once - 1) / at_once;
    const double ns = static_cast<double>(t) * static_cast<double>(k) / 8.0;
    parallel_for(n_blocks, ns, [&](int64_t first, int64_t last) {
      const int64_t start = first * at_once, end = std::min(last * at_once, t);
      set_part(x + start * k, k, start, end, 0, k);
    });
  }

  // Quantize columns first to first + n, whole groups, of rows start to end, which begin and end
  // with a block; x (end - start, n), rows `stride` apart.
  void set_part(const float* x, int64_t stride, int64_t start, int64_t end, int64_t first,
                int64_t n) {
    const Kernels& run = kernels();
    for (int64_t begin = start; start < end;) {
      const int64_t rows = block_rows(end - start, run.packed_rows);
      int8_t* codes = codes_.data() + start * k_ + first * rows;
      GroupFactors* groups =
          groups_.data() + start * (k_ / group_size_) + first / group_size_ * rows;
      for (int64_t row = 0; row < rows; ++row)
        run.quantize_row(x + (start - begin + row) * stride, n, group_size_,
                         {codes, groups, rows, row});
      start += rows;
    }
  }
  QuantizedRows rows() const { return {codes_.data(), groups_.data()}; }

 private:
  int64_t k_ = 0;
  int64_t group_size_ = 1;
  std::vector<int8_t> codes_;
  std::vector<GroupFactors> groups_;
};

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
          run.linear_packed(rows.rows(), t, part.packed, first, end, added, y + column, w.n, add,
                            packed_scratch(part.packed, t, run));
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

double part_ns(const Part& part, int64_t k, int64_t t) {
  const double bytes = static_cast<double>(part.n_bytes());
  const double work = static_cast<double>(part.n()) * static_cast<double>(k) *
                      static_cast<double>(t);
  const double speed = part.is_packed() ? kPackedMultiplyAddsPerNs : kMultiplyAddsPerNs;
  return std::max(bytes / kBytesPerNs, work / speed);
}

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

void linear_heads(const float* x, int64_t t, const Matrix& w, int64_t n_heads, float* y) {
  const Kernels& run = kernels();
  const int64_t n = w.n / n_heads, n_units = (n + kUnit - 1) / kUnit;
  const double ns = std::max(static_cast<double>(w.n * row_bytes(w)) / kBytesPerNs,
                             static_cast<double>(w.n * w.k * t) / kMultiplyAddsPerNs);
  parallel_for(n_heads * n_units, ns, [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last;) {
      const int64_t head = unit / n_units, end = std::min(last, (head + 1) * n_units);
      Matrix own = w;
      own.data += head * n * row_bytes(w);
      own.n = n;
      run.linear(x + head * w.k, n_heads * w.k, t, own, unit % n_units * kUnit,
                 std::min((end - head * n_units) * kUnit, n), nullptr, y + head * n, w.n, false);
      unit = end;
    }
  });
}

void embed(const Matrix& table, const int32_t* ids, int64_t t, float scale, float* y) {
  const Kernels& run = kernels();
  const auto unpack = table.bits ? unpack_quantized : run.unpack_row;
  for (int64_t row = 0; row < t; ++row) unpack(table, ids[row], y + row * table.k);
  if (scale != 1.0f) run.scale(y, t * table.k, scale);
}

void embed(const Packed& table, const int32_t* ids, int64_t t, float scale, float* y) {
  for (int64_t row = 0; row < t; ++row) unpack_packed(table, ids[row], y + row * table.k);
  if (scale != 1.0f) kernels().scale(y, t * table.k, scale);
}

void norm(Norm kind, const float* x, int64_t t, int64_t d, const float* w, float eps, float* y) {
  const auto run = kind == Norm::rms ? kernels().rms_norm : kernels().layer_norm;
  const double ns = static_cast<double>(t) * static_cast<double>(d) / 4.0;
  parallel_for(t, ns, [&](int64_t first, int64_t last) {
    run(x + first * d, last - first, d, w, eps, y + first * d);
  });
}

namespace {

// Call f(first, count) for ranges of n numbers; elementwise work, so how they are cut changes
// nothing.
template <class F>
void each_range(int64_t n, double ns_per_number, F f) {
  const int64_t n_units = (n + 63) / 64;
  parallel_for(n_units, static_cast<double>(n) * ns_per_number, [&](int64_t first, int64_t last) {
    f(first * 64, std::min(last * 64, n) - first * 64);
  });
}

}  // namespace

void add_scaled(float* y, const float* x, int64_t n, float scale) {
  const Kernels& run = kernels();
  each_range(n, 0.25, [&](int64_t at, int64_t count) {
    run.add_scaled(y + at, x + at, count, scale);
  });
}

void soft_cap(float* x, int64_t n, float cap) {
  const Kernels& run = kernels();
  each_range(n, 1.0, [&](int64_t at, int64_t count) { run.soft_cap(x + at, count, cap); });
}

void sigmoid_gate(float* x, const float* gates, int64_t t, int64_t d, bool one_gate) {
  const Kernels& run = kernels();
  parallel_for(t, static_cast<double>(t * d), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      run.sigmoid_gate(x + row * d, gates + (one_gate ? row : row * d), d, one_gate);
  });
}

namespace {

// Rows that go through gate, up and down together, rounded up to whole blocks of rows. Packed
// weights: a step of a prompt, since what lies between are bytes. Else enough to read weights seldom,
// few enough that the floats stay in the cache.
constexpr int64_t kPackedMlpRows = 256;
constexpr int64_t kMlpRows = 128;

// Numbers between the matrices that a thread makes at once, so that they stay in its cache.
constexpr int64_t kMlpNumbers = 32 << 10;

// The group size of matrices that round their rows alike; 0 if they do not.
int64_t common_group_size(const Weight& w) {
  int64_t size = 0;
  for (const Part& part : w.parts) {
    if (!part.is_packed() || (size && size != part.packed.group_size)) return 0;
    size = part.packed.group_size;
  }
  return size;
}

bool is_packed_mlp(const Weight& gate_up, const Weight& down) {
  return gate_up.parts.size() == 2 && gate_up.parts[0].n() == down.k &&
         common_group_size(gate_up) && common_group_size(down);
}

// Rows first... of a packed matrix.
Packed rows_from(const Packed& w, int64_t first) {
  Packed rest = w;
  rest.data += first / kUnit * w.panel_bytes();
  rest.n -= first;
  return rest;
}

// A thread makes whole groups of down's columns: their gates and ups, then what becomes of them,
// rounded. Nothing else lies between the matrices.
void packed_mlp_rows(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
                     const Weight& down, const float* down_bias, Activation activation, float* y,
                     bool add) {
  const Kernels& run = kernels();
  // Kept by the calling thread; the threads that help it see them through these references.
  thread_local RowQuantizer kept_rows, kept_hidden;
  RowQuantizer &rows = kept_rows, &hidden = kept_hidden;
  const int64_t ffn = down.k, size = common_group_size(down), unit = std::max(size, kUnit);
  rows.set(x, t, gate_up.k, common_group_size(gate_up));
  hidden.reserve(t, ffn, size);
  const int64_t at_once = std::max(kMlpNumbers / (2 * t) / unit, int64_t{1}) * unit;
  const double ns = part_ns(gate_up.parts[0], gate_up.k, t) + part_ns(gate_up.parts[1], gate_up.k, t);
  parallel_for(ffn / unit, ns, [&](int64_t first, int64_t last) {
    thread_local std::vector<float> numbers;
    for (int64_t column = first * unit; column < last * unit; column += at_once) {
      const int64_t n = std::min(at_once, last * unit - column);
      float* gates = grown(numbers, t * 2 * n);  // (t, 2 n): gates, ups
      for (int64_t i = 0; i < 2; ++i) {
        const Packed part = rows_from(gate_up.parts[static_cast<size_t>(i)].packed, column);
        run.linear_packed(rows.rows(), t, part, 0, n / kUnit,
                          gate_up_bias ? gate_up_bias + i * ffn + column : nullptr, gates + i * n,
                          2 * n, false, packed_scratch(part, t, run));
      }
      for (int64_t row = 0; row < t; ++row)
        run.gate(gates + row * 2 * n, gates + row * 2 * n + n, n, activation, gates + row * 2 * n);
      hidden.set_part(gates, 2 * n, 0, t, column, n);
    }
  });
  linear_parts(nullptr, t, down, 0, down.parts.size(), 0, hidden, down_bias, y, add);
}

void mlp_rows(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
              const Weight& down, const float* down_bias, Activation activation, float* y,
              bool add) {
  const Kernels& run = kernels();
  const int64_t ffn = down.k;
  // Grows to the most rows of this thread and is kept.
  thread_local std::vector<float> scratch;
  float* both = grown(scratch, t * 3 * ffn);  // (t, 2 ffn): gate, up
  float* hidden = both + t * 2 * ffn;         // (t, ffn)
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
  linear(hidden, t, down, down_bias, y, add);
}

}  // namespace

void gated_mlp(const float* x, int64_t t, const Weight& gate_up, const float* gate_up_bias,
               const Weight& down, const float* down_bias, Activation activation, float* y,
               bool add) {
  const bool packed = is_packed_mlp(gate_up, down);
  const auto rows = packed ? packed_mlp_rows : mlp_rows;
  const int64_t block = kernels().packed_rows;
  const int64_t most = ((packed ? kPackedMlpRows : kMlpRows) + block - 1) / block * block;
  for (int64_t row = 0; row < t; row += most)
    rows(x + row * gate_up.k, std::min(most, t - row), gate_up, gate_up_bias, down, down_bias,
         activation, y + row * down.n, add);
}

}  // namespace gangline
