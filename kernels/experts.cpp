// The rows of a step are sorted by expert, so that an expert's weights are read once whatever the
// number of its rows; the panels of all experts are dealt out to the threads together.
#include "experts.h"

#include <algorithm>
#include <array>

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace gangline {
namespace {

// Rows [first, end) of the sorted ones belong to one expert.
struct Segment {
  int64_t expert, first, end;
  int64_t rows() const { return end - first; }
};

// Which row of x each sorted row is, and where the sorted row of (row, choice) is.
struct Order {
  std::vector<Segment> segments;
  std::vector<int64_t> row_of, sorted_of;

  void set(const int32_t* experts, int64_t t, int64_t n_active, int64_t n_experts) {
    ends_.assign(static_cast<size_t>(n_experts), 0);
    for (int64_t i = 0; i < t * n_active; ++i) ++ends_[static_cast<size_t>(experts[i])];
    segments.clear();
    int64_t end = 0;
    for (int64_t e = 0; e < n_experts; ++e) {
      int64_t& count = ends_[static_cast<size_t>(e)];
      if (count) segments.push_back({e, end, end + count});
      end += count;
      count = end - count;  // from now on: where the expert's next row goes
    }
    row_of.resize(static_cast<size_t>(end));
    sorted_of.resize(static_cast<size_t>(end));
    for (int64_t i = 0; i < end; ++i) {
      const int64_t at = ends_[static_cast<size_t>(experts[i])]++;
      row_of[static_cast<size_t>(at)] = i / n_active;
      sorted_of[static_cast<size_t>(i)] = at;
    }
  }

 private:
  std::vector<int64_t> ends_;
};

// Sorted rows as the experts' matrices take them; the memory grows to the largest step.
class SortedRows {
 public:
  // row(i) is sorted row i, (k); `all_same`: it is the same row for each i.
  template <class Row>
  void set(const std::vector<Segment>& segments, const std::vector<Weight>& weights, bool all_same,
           Row row) {
    const int64_t k = weights.front().k;
    const std::vector<Segment> one = {{segments.front().expert, 0, 1}};
    const std::vector<Segment>& distinct = all_same ? one : segments;
    const int64_t n_rows = distinct.back().end;
    all_same_ = all_same;
    bool dense = false;
    sizes_.fill(false);
    for (const Segment& segment : segments) {
      for (const Part& part : weights[static_cast<size_t>(segment.expert)].parts) {
        if (part.is_packed()) sizes_[index_of(part.packed.group_size)] = true;
        dense = dense || !part.is_packed();
      }
    }
    if (dense) {
      float* to = grown(floats_, n_rows * k);
      for (int64_t i = 0; i < n_rows; ++i) std::copy_n(row(i), k, to + i * k);
    }
    for (size_t index = 0; index < sizes_.size(); ++index)
      if (sizes_[index]) quantize(distinct, k, int64_t{16} << index, quantized_[index], row);
  }

  // Units [first, last) of `part` for the rows of a segment; y (n_rows, stride).
  void multiply(const Segment& segment, const Part& part, int64_t k, int64_t first, int64_t last,
                const float* bias, float* y, int64_t stride) const {
    const int64_t from = all_same_ ? 0 : segment.first;
    float* to = y + segment.first * stride;
    if (!part.is_packed()) {
      kernels().linear(floats_.data() + from * k, k, segment.rows(), part.dense,
                       first * kUnit, std::min(last * kUnit, part.n()), bias, to, stride, false);
      return;
    }
    const int64_t n_groups = k / part.packed.group_size;
    const Quantized& rows = quantized_[index_of(part.packed.group_size)];
    const QuantizedRows own = {rows.codes.data() + from * k,
                               rows.groups.data() + from * n_groups};
    const Kernels& run = kernels();
    run.linear_packed(own, segment.rows(), part.packed, first, last, bias, to, stride, false,
                      packed_scratch(part.packed, segment.rows(), run));
  }

  static constexpr int64_t kUnit = 16;  // rows of a matrix that are dealt out together: a panel

 private:
  struct Quantized {
    std::vector<int8_t> codes;
    std::vector<GroupFactors> groups;
  };

  static size_t index_of(int64_t group_size) {
    return group_size == 16 ? 0 : group_size == 32 ? 1 : group_size == 64 ? 2 : 3;
  }

  // Block by block of each segment, see QuantizedRows.
  template <class Row>
  static void quantize(const std::vector<Segment>& segments, int64_t k, int64_t group_size,
                       Quantized& out, Row row) {
    const Kernels& run = kernels();
    const int64_t n_rows = segments.back().end, n_groups = k / group_size;
    int8_t* codes = grown(out.codes, n_rows * k);
    GroupFactors* groups = grown(out.groups, n_rows * n_groups);
    const double ns = static_cast<double>(n_rows * k);
    parallel_for(static_cast<int64_t>(segments.size()), ns, [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s) {
        const Segment& segment = segments[static_cast<size_t>(s)];
        for (int64_t start = segment.first; start < segment.end;) {
          const int64_t rows = block_rows(segment.end - start, run.packed_rows);
          for (int64_t i = 0; i < rows; ++i)
            run.quantize_row(row(start + i), k, group_size,
                             {codes + start * k, groups + start * n_groups, rows, i});
          start += rows;
        }
      }
    });
  }

  bool all_same_ = false;
  std::array<bool, 4> sizes_{};
  std::array<Quantized, 4> quantized_;
  std::vector<float> floats_;
};

// y (sorted rows, n) = each row times its expert's weight, plus its bias (E * n) if there is one.
void multiply_all(const SortedRows& rows, const std::vector<Segment>& segments,
                  const std::vector<Weight>& weights, const float* bias, float* y) {
  struct Item {
    const Segment& segment;
    const Part& part;
    int64_t start;            // column of y
    int64_t price, price_of_unit;  // of all that comes before, and of each of its units
  };
  const int64_t n = weights.front().n, k = weights.front().k;
  std::vector<Item> items;
  int64_t price = 0;
  double ns = 0;
  for (const Segment& segment : segments) {
    int64_t start = 0;
    for (const Part& part : weights[static_cast<size_t>(segment.expert)].parts) {
      // Reading a panel takes about as long as multiplying it with eight rows.
      const int64_t of_unit = 8 + segment.rows();
      items.push_back({segment, part, start, price, of_unit});
      price += of_unit * ((part.n() + SortedRows::kUnit - 1) / SortedRows::kUnit);
      start += part.n();
      ns += part_ns(part, k, segment.rows());
    }
  }
  parallel_for(price, ns, [&](int64_t first, int64_t last) {
    for (size_t i = 0; i < items.size(); ++i) {
      const Item& item = items[i];
      const int64_t end = i + 1 < items.size() ? items[i + 1].price : price;
      if (end <= first || item.price >= last) continue;
      // A unit belongs to the range in which its price begins.
      const auto unit_at = [&](int64_t at) {
        const int64_t after = std::clamp(at, item.price, end) - item.price;
        return (after + item.price_of_unit - 1) / item.price_of_unit;
      };
      const float* added = bias ? bias + item.segment.expert * n + item.start : nullptr;
      const int64_t from = unit_at(first), to = unit_at(last);
      if (from < to) rows.multiply(item.segment, item.part, k, from, to, added, y + item.start, n);
    }
  });
}

}  // namespace

void mixture(const float* x, int64_t t, const int32_t* experts, const float* weights,
             int64_t n_active, const std::vector<Weight>& gate_up, const float* gate_up_bias,
             const std::vector<Weight>& down, const float* down_bias, Activation activation,
             float* y) {
  if (t == 0) return;
  const Kernels& run = kernels();
  const int64_t k = gate_up.front().k, ffn = down.front().k, n = down.front().n;
  const int64_t n_rows = t * n_active;
  // Kept by the calling thread; the threads that help it see it through these references.
  thread_local Order kept_order;
  thread_local SortedRows kept_rows;
  thread_local std::vector<float> results, hidden;
  Order& order = kept_order;
  SortedRows& rows = kept_rows;
  // 1. Gates and ups of every row and each of its experts.
  order.set(experts, t, n_active, static_cast<int64_t>(gate_up.size()));
  const bool one_row = t == 1 && static_cast<int64_t>(order.segments.size()) == n_active;
  rows.set(order.segments, gate_up, one_row, [&](int64_t i) {
    return x + order.row_of[static_cast<size_t>(i)] * k;
  });
  float* both = grown(results, n_rows * std::max(2 * ffn, n));
  multiply_all(rows, order.segments, gate_up, gate_up_bias, both);
  // 2. What goes into the second matrices.
  float* gated = grown(hidden, n_rows * ffn);
  parallel_for(n_rows, static_cast<double>(n_rows * ffn), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      run.gate(both + i * 2 * ffn, both + i * 2 * ffn + ffn, ffn, activation, gated + i * ffn);
  });
  rows.set(order.segments, down, false, [&](int64_t i) { return gated + i * ffn; });
  multiply_all(rows, order.segments, down, down_bias, both);
  // 3. The sum of each row, in the order of its choices.
  parallel_for(t, static_cast<double>(n_rows * n) / 8.0, [&](int64_t first, int64_t last) {
    for (int64_t i = first * n_active; i < last * n_active; ++i)
      run.add_scaled(y + i / n_active * n, both + order.sorted_of[static_cast<size_t>(i)] * n, n,
                     weights[i]);
  });
}

}  // namespace gangline
