// y = x @ w.T for packed group-affine matrices of 4 and 8 bits and quantized rows of x.
//
// Sums within a group are whole numbers and exact. Over the groups each output has one float sum,
//   sum = scale * (factor * dots) + sum;  sum = offset * (factor * row_sum) + sum
// in order of the groups, each line one fused multiply-add. The 16 rows of a panel are the lanes, so
// nothing is ever added across lanes, and the tile's size changes no bit.
#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

// Bytes of a panel that are asked for before they are needed, when one row of x streams past.
constexpr int64_t kAhead = 4096;

template <int Bits>
struct Group;

// Low nibbles of a vector are columns of the first half of the group, high ones of the second.
template <>
struct Group<4> {
  using Sums = Dots4;
  template <int T, int Chains>
  static void run(const uint8_t* w, const int8_t* x, int64_t size, Sums (&sums)[T][Chains],
                  bool ahead) {
    const int64_t n_vectors = size / 8;
    for (int64_t j = 0; j < n_vectors; j += 4) {  // at most eight sums per chain, then settle
      for (int64_t i = j; i < j + 4; ++i) {
        if (ahead) prefetch(w + 64 * i + kAhead);
        const Codes both = load_codes(w + 64 * i);
        const Codes low = low_nibbles(both), high = high_nibbles(both);
        for (int t = 0; t < T; ++t) {
          sums[t][(2 * i) % Chains].add(low, word(x + 4 * (T * i + t)));
          sums[t][(2 * i + 1) % Chains].add(high, word(x + T * size / 2 + 4 * (T * i + t)));
        }
      }
      for (int t = 0; t < T; ++t)
        for (int c = 0; c < Chains; ++c) sums[t][c].settle();
    }
  }
  static I32x16 finish(I32x16 total, int32_t) { return total; }
  static int32_t word(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return four;
  }
};

template <>
struct Group<8> {
  using Sums = Dots8;
  template <int T, int Chains>
  static void run(const uint8_t* w, const int8_t* x, int64_t size, Sums (&sums)[T][Chains],
                  bool ahead) {
    for (int64_t i = 0; i < size / 4; ++i) {
      if (ahead) prefetch(w + 64 * i + kAhead);
      const Codes codes = load_codes(w + 64 * i);
      for (int t = 0; t < T; ++t)
        sums[t][i % Chains].add(codes, Group<4>::word(x + 4 * (T * i + t)));
    }
  }
  static I32x16 finish(I32x16 total, int32_t sum) {
    return Dots8::kShift ? add(total, set1_i32(Dots8::kShift * sum)) : total;
  }
};

template <int Bits, Dtype D, int T>
void run_panel(const Packed& w, const uint8_t* panel, const QuantizedRow* x, const int8_t* block,
               bool ahead, F32x16* results) {
  // One row has too few sums to hide the latency of a product: it gets four chains.
  constexpr int kChains = T == 1 ? 4 : T < 4 ? 2 : 1;
  const int64_t size = w.group_size, codes_bytes = size * kLanes * Bits / 8;
  const int64_t scale_bytes = kLanes * Numbers<D>::bytes;
  F32x16 sums[T];
  for (int t = 0; t < T; ++t) sums[t] = zero();
  for (int64_t group = 0; group < w.k / size; ++group) {
    typename Group<Bits>::Sums dots[T][kChains];
    const uint8_t* numbers = panel + 2 * scale_bytes;
    Group<Bits>::run(numbers, block + T * group * size, size, dots, ahead);
    const F32x16 scale = Numbers<D>::load16(panel);
    const F32x16 offset = Numbers<D>::load16(panel + scale_bytes);
    for (int t = 0; t < T; ++t) {
      I32x16 total = dots[t][0].total();
      for (int c = 1; c < kChains; ++c) total = add(total, dots[t][c].total());
      const int32_t row_sum = x[t].sums[group];
      const float factor = x[t].factors[group];
      const F32x16 dot = mul(to_float(Group<Bits>::finish(total, row_sum)), set1(factor));
      sums[t] = fma(scale, dot, sums[t]);
      sums[t] = fma(offset, set1(factor * static_cast<float>(row_sum)), sums[t]);
    }
    panel = numbers + codes_bytes;
  }
  for (int t = 0; t < T; ++t) results[t] = sums[t];
}

template <int Bits, Dtype D, int T>
void run_block(const Packed& w, int64_t panel, const QuantizedRow* x, const int8_t* block,
               bool ahead, int64_t t, const Output& out) {
  F32x16 results[T];
  run_panel<Bits, D, T>(w, w.data + panel * w.panel_bytes(), x + t, block + t * w.k, ahead,
                        results);
  const int64_t n = panel * kLanes, used = w.n - n < kLanes ? w.n - n : kLanes;
  for (int i = 0; i < T; ++i) out.write16(t + i, n, used, results[i]);
}

template <int Bits, Dtype D>
void run_panels(const QuantizedRow* x, const int8_t* blocks, int64_t n_rows, const Packed& w,
                int64_t first, int64_t last, const Output& out) {
  for (int64_t panel = first; panel < last; ++panel) {
    int64_t rows = 0;
    for (int64_t t = 0; t < n_rows; t += rows) {
      rows = block_rows(n_rows - t, kPackedRows);
      const bool ahead = t == 0;  // later blocks find the panel in the cache
      if (rows == kPackedRows) run_block<Bits, D, kPackedRows>(w, panel, x, blocks, ahead, t, out);
      else if (rows == 4) run_block<Bits, D, 4>(w, panel, x, blocks, ahead, t, out);
      else if (rows == 2) run_block<Bits, D, 2>(w, panel, x, blocks, ahead, t, out);
      else run_block<Bits, D, 1>(w, panel, x, blocks, ahead, t, out);
    }
  }
}

template <int Bits>
void run_dtype(const QuantizedRow* x, const int8_t* blocks, int64_t t, const Packed& w,
               int64_t first, int64_t last, const Output& out) {
  switch (w.dtype) {
    case Dtype::f32:
      return run_panels<Bits, Dtype::f32>(x, blocks, t, w, first, last, out);
    case Dtype::f16:
      return run_panels<Bits, Dtype::f16>(x, blocks, t, w, first, last, out);
    case Dtype::bf16:
      return run_panels<Bits, Dtype::bf16>(x, blocks, t, w, first, last, out);
  }
}

}  // namespace

void linear_packed(const QuantizedRow* x, const int8_t* blocks, int64_t t, const Packed& w,
                   int64_t first, int64_t last, const Output& out) {
  if (w.bits == 4) return run_dtype<4>(x, blocks, t, w, first, last, out);
  return run_dtype<8>(x, blocks, t, w, first, last, out);
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
