// y = x @ w.T for packed group-affine matrices of 4 and 8 bits and quantized rows of x.
//
// Sums within a group are whole numbers and exact. Over the groups each output has one float sum,
//   sum = scale * (factor * dots) + sum;  sum = offset * (factor * row_sum) + sum
// in order of the groups, each line one fused multiply-add. The 16 rows of a panel are the lanes, so
// nothing is ever added across lanes, and neither the size of a block nor the instructions that
// make the whole numbers (products of vectors, of pairs of rows, or tiles) change a bit.
#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

// Bytes of a panel that are asked for before they are needed, when the first rows stream it.
constexpr int64_t kAhead = 4096;

// Bytes of codes of x that stay in the cache while panels stream past.
constexpr int64_t kRowsBytes = 256 << 10;

inline int32_t word(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return four;
}

// The whole numbers of one group: a panel times T rows of x, whose columns lie as (k / 4, T, 4).
// One row has too few sums to hide the latency of a product: it gets four chains.
template <class Dots, int T>
struct Products {
  static constexpr int kChains = T == 1 ? 4 : T < 4 ? 2 : 1;
  Dots dots[T][kChains];

  // Eight columns; `half` tells apart calls that may use other chains.
  void add(Codes first, Codes second, const int8_t* x, int half) {
    for (int t = 0; t < T; ++t) {
      dots[t][2 * half % kChains].add(first, word(x + 4 * t));
      dots[t][(2 * half + 1) % kChains].add(second, word(x + 4 * (T + t)));
    }
  }
  void settle() {
    for (int t = 0; t < T; ++t)
      for (int c = 0; c < kChains; ++c) dots[t][c].settle();
  }
  I32x16 total(int t) const {
    I32x16 sum = dots[t][0].total();
    for (int c = 1; c < kChains; ++c) sum = gangline::GANGLINE_PATH::add(sum, dots[t][c].total());
    return sum;
  }
};

#if defined(GANGLINE_PAIRS)
template <class Dots>
struct Products<Dots, 4> : PairProducts<4> {};
template <class Dots>
struct Products<Dots, 2> : PairProducts<2> {};
#endif

template <int Bits>
struct Group;

// Low nibbles of a vector are columns of the first half of the group, high ones of the second.
template <>
struct Group<4> {
  using Dots = Dots4;
  template <int T>
  static void run(const uint8_t* w, const int8_t* x, int64_t size, Products<Dots, T>& products,
                  bool ahead) {
    if (size < 32) return run_by<2>(w, x, size, products, ahead);
    run_by<4>(w, x, size, products, ahead);
  }
  // Vectors by Step: at most eight products per chain, then settle.
  template <int Step, int T>
  static void run_by(const uint8_t* w, const int8_t* x, int64_t size, Products<Dots, T>& products,
                     bool ahead) {
    const int8_t* upper = x + T * size / 2;
    for (int64_t j = 0; j < size / 8; j += Step) {
      for (int64_t i = j; i < j + Step; i += 2) {
        if (ahead) {
          prefetch(w + 64 * i + kAhead);
          prefetch(w + 64 * i + 64 + kAhead);
        }
        const Codes first = load_codes(w + 64 * i), second = load_codes(w + 64 * i + 64);
        products.add(low_nibbles(first), low_nibbles(second), x + 4 * T * i, 0);
        products.add(high_nibbles(first), high_nibbles(second), upper + 4 * T * i, 1);
      }
      products.settle();
    }
  }
};

template <>
struct Group<8> {
  using Dots = Dots8;
  template <int T>
  static void run(const uint8_t* w, const int8_t* x, int64_t size, Products<Dots, T>& products,
                  bool ahead) {
    for (int64_t i = 0; i < size / 4; i += 2) {
      if (ahead) {
        prefetch(w + 64 * i + kAhead);
        prefetch(w + 64 * i + 64 + kAhead);
      }
      products.add(load_codes(w + 64 * i), load_codes(w + 64 * i + 64), x + 4 * T * i,
                   static_cast<int>(i / 2 % 2));
    }
  }
};

// What `dots`, the products of a group, add to the sum of an output.
inline F32x16 add_group(F32x16 sum, I32x16 dots, const GroupFactors& x, F32x16 scale,
                        F32x16 offset) {
  sum = fma(scale, mul(to_float(dots), set1(x.factor)), sum);
  return fma(offset, set1(x.sum_factor), sum);
}

struct Problem {
  QuantizedRows x;
  int64_t n_rows;
  const Packed& w;
  const Output& out;

  int64_t n_groups() const { return w.k / w.group_size; }
  void write(int64_t panel, int64_t row, F32x16 values) const {
    const int64_t n = panel * kLanes, used = w.n - n < kLanes ? w.n - n : kLanes;
    out.write16(row, n, used, values);
  }
};

// A panel times the block of T rows that begins at `row`.
template <int Bits, Dtype D, int T>
void run_block(const Problem& problem, int64_t panel, int64_t row) {
  const Packed& w = problem.w;
  const int64_t size = w.group_size, scale_bytes = kLanes * Numbers<D>::bytes;
  const int8_t* codes = problem.x.codes + row * w.k;
  const GroupFactors* groups = problem.x.groups + row * problem.n_groups();
  const uint8_t* at = w.data + panel * w.panel_bytes();
  const bool ahead = row == 0;  // later blocks find the panel in the cache
  F32x16 sums[T];
  for (int t = 0; t < T; ++t) sums[t] = zero();
  for (int64_t group = 0; group < problem.n_groups(); ++group) {
    Products<typename Group<Bits>::Dots, T> products;
    Group<Bits>::run(at + 2 * scale_bytes, codes, size, products, ahead);
    const F32x16 scale = Numbers<D>::load16(at);
    const F32x16 offset = Numbers<D>::load16(at + scale_bytes);
    for (int t = 0; t < T; ++t) {
      I32x16 dots = products.total(t);
      if (Bits == 8 && Dots8::kShift) dots = add(dots, set1_i32(Dots8::kShift * groups[t].sum));
      sums[t] = add_group(sums[t], dots, groups[t], scale, offset);
    }
    codes += T * size;
    groups += T;
    at += 2 * scale_bytes + size * kLanes * Bits / 8;
  }
  for (int t = 0; t < T; ++t) problem.write(panel, row + t, sums[t]);
}

#if defined(GANGLINE_TILES)
// The codes of one group of a panel as the rows of tiles: one byte each, (size / 4, 16, 4).
template <int Bits>
void unpack_group(const uint8_t* w, int64_t size, uint8_t* out) {
  if (Bits == 8) {
    std::memcpy(out, w, static_cast<size_t>(size * kLanes));
    return;
  }
  for (int64_t i = 0; i < size / 8; ++i) {
    const Codes both = load_codes(w + 64 * i);
    store_codes(out + 64 * i, low_nibbles(both));
    store_codes(out + 64 * i + size / 2 * kLanes, high_nibbles(both));
  }
}

// A panel times B blocks of kTileRows rows, the first at `row`. Tiles 0 to B are sums, then codes.
template <int Bits, Dtype D, int B>
void run_tiles(const Problem& problem, int64_t panel, int64_t row) {
  const Packed& w = problem.w;
  const int64_t size = w.group_size, scale_bytes = kLanes * Numbers<D>::bytes;
  const int64_t columns = tile_columns(size), n_groups = problem.n_groups();
  alignas(64) uint8_t codes[kLanes * 128];
  alignas(64) int32_t dots[B][kTileRows][kLanes];
  F32x16 sums[B][kTileRows];
  for (int b = 0; b < B; ++b)
    for (int64_t t = 0; t < kTileRows; ++t) sums[b][t] = zero();
  const uint8_t* at = w.data + panel * w.panel_bytes();
  for (int64_t group = 0; group < n_groups; ++group) {
    const F32x16 scale = Numbers<D>::load16(at);
    const F32x16 offset = Numbers<D>::load16(at + scale_bytes);
    unpack_group<Bits>(at + 2 * scale_bytes, size, codes);
    const int8_t* x = problem.x.codes + row * w.k + group * size * kTileRows;
    Tiles::multiply<B>(codes, x, kTileRows * w.k, size / columns, columns, dots);
    for (int b = 0; b < B; ++b) {
      const GroupFactors* factors =
          problem.x.groups + (row + b * kTileRows) * n_groups + group * kTileRows;
      for (int64_t t = 0; t < kTileRows; ++t)
        sums[b][t] = add_group(sums[b][t], load_i32(dots[b][t]), factors[t], scale, offset);
    }
    at += 2 * scale_bytes + size * kLanes * Bits / 8;
  }
  for (int b = 0; b < B; ++b)
    for (int64_t t = 0; t < kTileRows; ++t)
      problem.write(panel, row + b * kTileRows + t, sums[b][t]);
}
#endif

// Rows row... of x times a panel, in blocks as block_rows says.
template <int Bits, Dtype D>
void run_rows(const Problem& problem, int64_t panel, int64_t row, int64_t end) {
#if defined(GANGLINE_TILES)
  for (; row + 4 * kTileRows <= end; row += 4 * kTileRows)
    run_tiles<Bits, D, 4>(problem, panel, row);
  for (; row + kTileRows <= end; row += kTileRows) run_tiles<Bits, D, 1>(problem, panel, row);
#endif
  while (row < end) {
    const int64_t rows = block_rows(end - row, kBlockRows);
    switch (rows) {
      case 1: run_block<Bits, D, 1>(problem, panel, row); break;
      case 2: run_block<Bits, D, 2>(problem, panel, row); break;
      case 4: run_block<Bits, D, 4>(problem, panel, row); break;
      default: if constexpr (kBlockRows >= 8) run_block<Bits, D, 8>(problem, panel, row);
    }
    row += rows;
  }
}

template <int Bits, Dtype D>
void run_panels(const Problem& problem, int64_t first, int64_t last) {
#if defined(GANGLINE_TILES)
  const Tiles tiles(tile_columns(problem.w.group_size));
#endif
  // A multiple of every block, so that only the last chunk has small ones.
  int64_t chunk = kRowsBytes / problem.w.k / 64 * 64;
  if (chunk < 64) chunk = 64;
  for (int64_t start = 0; start < problem.n_rows; start += chunk) {
    const int64_t end = start + chunk < problem.n_rows ? start + chunk : problem.n_rows;
    for (int64_t panel = first; panel < last; ++panel)
      run_rows<Bits, D>(problem, panel, start, end);
  }
}

template <int Bits>
void run_dtype(const Problem& problem, int64_t first, int64_t last) {
  switch (problem.w.dtype) {
    case Dtype::f32: return run_panels<Bits, Dtype::f32>(problem, first, last);
    case Dtype::f16: return run_panels<Bits, Dtype::f16>(problem, first, last);
    case Dtype::bf16: return run_panels<Bits, Dtype::bf16>(problem, first, last);
  }
}

}  // namespace

void linear_packed(const QuantizedRows& x, int64_t t, const Packed& w, int64_t first, int64_t last,
                   const Output& out) {
  const Problem problem{x, t, w, out};
  if (w.bits == 4) return run_dtype<4>(problem, first, last);
  return run_dtype<8>(problem, first, last);
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
