// y = x @ w.T for packed group-affine matrices of 4 and 8 bits and quantized rows of x.
//
// Sums within a group are whole numbers and exact. Over the groups each output has one float sum,
//   sum = scale * (factor * dots) + sum;  sum = offset * (factor * row_sum) + sum
// in order of the groups, each line one fused multiply-add. The 16 rows of a panel are the lanes, so
// nothing is ever added across lanes, and neither the size of a block nor the instructions that
// make the whole numbers (products of vectors, of pairs of rows, or tiles) change a bit.
#include "linear.h"

#if defined(GANGLINE_WINOGRAD)
#include "winograd.h"
#endif

namespace gangline {
namespace GANGLINE_PATH {
namespace {

// Bytes of a panel that are asked for before they are needed.
constexpr int64_t kAhead = 4096;

// Bytes of codes of x that stay in the cache while panels stream past.
constexpr int64_t kRowsBytes = 256 << 10;

inline void prefetch_two(const uint8_t* p) {
  prefetch(p);
  prefetch(p + 64);
}

// The whole numbers of one group: P panels times T rows of x, whose columns lie as (k / 4, T, 4).
// Few sums cannot hide the latency of a product: they get several chains.
template <class Dots, int T, int P>
struct Products {
  static constexpr int kChains = T == 1 ? 4 : T < 4 ? 2 : 1;
  Dots dots[P][T][kChains];

  // Eight columns; `half` tells apart calls that may use other chains.
  GANGLINE_INLINE void add(const Codes (&first)[P], const Codes (&second)[P], const int8_t* x,
                           int half) {
    add_four(first, x, 2 * half % kChains);
    add_four(second, x + 4 * T, (2 * half + 1) % kChains);
  }
  void settle() {
    for (int p = 0; p < P; ++p)
      for (int t = 0; t < T; ++t)
        for (int c = 0; c < kChains; ++c) dots[p][t][c].settle();
  }
  I32x16 total(int p, int t) const {
    I32x16 sum = dots[p][t][0].total();
    for (int c = 1; c < kChains; ++c)
      sum = gangline::GANGLINE_PATH::add(sum, dots[p][t][c].total());
    return sum;
  }

 private:
  GANGLINE_INLINE void add_four(const Codes (&codes)[P], const int8_t* x, int chain) {
    for (int t = 0; t < T; ++t) {
      const int32_t four = word(x + 4 * t);
      for (int p = 0; p < P; ++p) dots[p][t][chain].add(codes[p], four);
    }
  }
};

#if defined(GANGLINE_PAIRS)
template <class Dots>
struct Products<Dots, 4, 1> : PairProducts<4> {};
template <class Dots>
struct Products<Dots, 2, 1> : PairProducts<2> {};
#endif

// The whole numbers of a group of P panels, `stride` bytes apart.
template <int Bits>
struct Group;

// Low nibbles of a vector are columns of the first half of the group, high ones of the second.
template <>
struct Group<4> {
  using Dots = Dots4;
  template <int T, int P>
  static GANGLINE_INLINE void run(const uint8_t* w, int64_t stride, const int8_t* x, int64_t size,
                                  Products<Dots, T, P>& products) {
    if (size < 32) return run_by<2>(w, stride, x, size, products);
    run_by<4>(w, stride, x, size, products);
  }
  // Vectors by Step: at most eight products per chain, then settle.
  template <int Step, int T, int P>
  static GANGLINE_INLINE void run_by(const uint8_t* w, int64_t stride, const int8_t* x,
                                     int64_t size, Products<Dots, T, P>& products) {
    const int8_t* upper = x + T * size / 2;
    for (int64_t j = 0; j < size / 8; j += Step) {
      for (int64_t i = j; i < j + Step; i += 2) {
        Codes first[P], second[P];
        for (int p = 0; p < P; ++p) {
          const uint8_t* at = w + p * stride + 64 * i;
          prefetch_two(at + kAhead);
          first[p] = low_nibbles(load_codes(at));
          second[p] = low_nibbles(load_codes(at + 64));
        }
        products.add(first, second, x + 4 * T * i, 0);
        for (int p = 0; p < P; ++p) {
          const uint8_t* at = w + p * stride + 64 * i;
          first[p] = high_nibbles(load_codes(at));
          second[p] = high_nibbles(load_codes(at + 64));
        }
        products.add(first, second, upper + 4 * T * i, 1);
      }
      products.settle();
    }
  }
};

template <>
struct Group<8> {
  using Dots = Dots8;
  template <int T, int P>
  static GANGLINE_INLINE void run(const uint8_t* w, int64_t stride, const int8_t* x, int64_t size,
                                  Products<Dots, T, P>& products) {
    for (int64_t i = 0; i < size / 4; i += 2) {
      Codes first[P], second[P];
      for (int p = 0; p < P; ++p) {
        const uint8_t* at = w + p * stride + 64 * i;
        prefetch_two(at + kAhead);
        first[p] = load_codes(at);
        second[p] = load_codes(at + 64);
      }
      products.add(first, second, x + 4 * T * i, static_cast<int>(i / 2 % 2));
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
  uint8_t* scratch;

  int64_t n_groups() const { return w.k / w.group_size; }
  void write(int64_t panel, int64_t row, F32x16 values) const {
    const int64_t n = panel * kLanes, used = w.n - n < kLanes ? w.n - n : kLanes;
    out.write16(row, n, used, values);
  }
};

// P panels times the block of T rows that begins at `row`.
template <int Bits, Dtype D, int T, int P>
void run_block(const Problem& problem, int64_t panel, int64_t row) {
  const Packed& w = problem.w;
  const int64_t size = w.group_size, scale_bytes = kLanes * Numbers<D>::bytes;
  const int64_t stride = w.panel_bytes();
  const int8_t* codes = problem.x.codes + row * w.k;
  const GroupFactors* groups = problem.x.groups + row * problem.n_groups();
  const uint8_t* at = w.data + panel * stride;
  F32x16 sums[P][T];
  for (int p = 0; p < P; ++p)
    for (int t = 0; t < T; ++t) sums[p][t] = zero();
  for (int64_t group = 0; group < problem.n_groups(); ++group) {
    Products<typename Group<Bits>::Dots, T, P> products;
    Group<Bits>::run(at + 2 * scale_bytes, stride, codes, size, products);
    for (int p = 0; p < P; ++p) {
      const F32x16 scale = Numbers<D>::load16(at + p * stride);
      const F32x16 offset = Numbers<D>::load16(at + p * stride + scale_bytes);
      for (int t = 0; t < T; ++t) {
        I32x16 dots = products.total(p, t);
        if (Bits == 8 && Dots8::kShift) dots = add(dots, set1_i32(Dots8::kShift * groups[t].sum));
        sums[p][t] = add_group(sums[p][t], dots, groups[t], scale, offset);
      }
    }
    codes += T * size;
    groups += T;
    at += 2 * scale_bytes + size * kLanes * Bits / 8;
  }
  for (int p = 0; p < P; ++p)
    for (int t = 0; t < T; ++t) problem.write(panel + p, row + t, sums[p][t]);
}

#if defined(GANGLINE_TILES)
// The codes of one group of a panel, one byte each, (size / 4, 16, 4).
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

// Rows row... of x times P panels, in blocks as block_rows says.
template <int Bits, Dtype D, int P>
void run_rows(const Problem& problem, int64_t panel, int64_t row, int64_t end) {
#if defined(GANGLINE_TILES)
  for (; row + 4 * kTileRows <= end; row += 4 * kTileRows)
    for (int p = 0; p < P; ++p) run_tiles<Bits, D, 4>(problem, panel + p, row);
  for (; row + kTileRows <= end; row += kTileRows)
    for (int p = 0; p < P; ++p) run_tiles<Bits, D, 1>(problem, panel + p, row);
#endif
  while (row < end) {
    const int64_t rows = block_rows(end - row, kBlockRows);
    switch (rows) {
      case 1: run_block<Bits, D, 1, P>(problem, panel, row); break;
      case 2: run_block<Bits, D, 2, P>(problem, panel, row); break;
      case 4: run_block<Bits, D, 4, P>(problem, panel, row); break;
      case 6:
        if constexpr (kBlockRows == 6) run_block<Bits, D, 6, P>(problem, panel, row);
        break;
      default:  // too many sums for more than one panel
        if constexpr (kBlockRows > 8)
          for (int p = 0; p < P; ++p) run_block<Bits, D, 8, 1>(problem, panel + p, row);
    }
    row += rows;
  }
}

#if defined(GANGLINE_WINOGRAD)
bool by_winograd(const Packed& w, int64_t n_rows) {
  return w.bits == 4 && w.group_size % kWinogradStep == 0 && n_rows >= kWinogradRows;
}

// Panels `panel` and the ones after it, written out.
template <Dtype D>
void write_out(const Packed& w, int64_t panel, uint8_t* to) {
  constexpr int P = kPackedPanels;
  const int64_t size = w.group_size, scale_bytes = kLanes * Numbers<D>::bytes;
  for (int p = 0; p < P; ++p) {
    const uint8_t* at = w.data + (panel + p) * w.panel_bytes();
    for (int64_t i = 0; i < w.k / size; ++i) {
      auto& group = *reinterpret_cast<WinogradGroup<P>*>(to + i * WinogradGroup<P>::bytes(size));
      store(group.scale[p], Numbers<D>::load16(at));
      store(group.offset[p], Numbers<D>::load16(at + scale_bytes));
      group.set_codes(p, at + 2 * scale_bytes, size);
      at += 2 * scale_bytes + size * kLanes / 2;
    }
  }
}

// What run_block does, with panels that are written out at problem.scratch.
template <int T, int P>
void run_winograd(const Problem& problem, int64_t panel, int64_t row) {
  const int64_t size = problem.w.group_size;
  const int8_t* codes = problem.x.codes + row * problem.w.k;
  const GroupFactors* factors = problem.x.groups + row * problem.n_groups();
  const uint8_t* at = problem.scratch;
  F32x16 sums[P][T];
  for (int p = 0; p < P; ++p)
    for (int t = 0; t < T; ++t) sums[p][t] = zero();
  for (int64_t i = 0; i < problem.n_groups(); ++i) {
    const auto& group = *reinterpret_cast<const WinogradGroup<P>*>(at);
    WinogradProducts<T, P> products;
    products.run(group, codes, factors, size);
    for (int p = 0; p < P; ++p) {
      const F32x16 scale = load(group.scale[p]), offset = load(group.offset[p]);
      for (int t = 0; t < T; ++t)
        sums[p][t] = add_group(sums[p][t], products.dots[p][t].total(), factors[t], scale, offset);
    }
    codes += T * size;
    factors += T;
    at += WinogradGroup<P>::bytes(size);
  }
  for (int p = 0; p < P; ++p)
    for (int t = 0; t < T; ++t) problem.write(panel + p, row + t, sums[p][t]);
}

// Pairs of panels from `first` on; the first panel that is left.
template <Dtype D>
int64_t run_winograd_panels(const Problem& problem, int64_t first, int64_t last) {
  const int64_t whole = problem.n_rows / kPackedRows * kPackedRows;
  const int64_t bytes = kPackedPanels * problem.w.panel_bytes();
  for (; first + kPackedPanels <= last; first += kPackedPanels) {
    write_out<D>(problem.w, first, problem.scratch);
    // The next panels come from memory meanwhile, a slice with each block.
    const bool more = first + 2 * kPackedPanels <= problem.w.n_panels();
    const uint8_t* next = problem.w.data + (first + kPackedPanels) * problem.w.panel_bytes();
    int64_t row = 0;
    for (; row < whole; row += kPackedRows) {
      if (more)
        for (int64_t at = bytes * row / whole; at < bytes * (row + kPackedRows) / whole; at += 64)
          prefetch_far(next + at);
      run_winograd<kPackedRows, kPackedPanels>(problem, first, row);
    }
    if (row + kWinogradBlock <= problem.n_rows) {
      run_winograd<kWinogradBlock, kPackedPanels>(problem, first, row);
      row += kWinogradBlock;
    }
    run_rows<4, D, kPackedPanels>(problem, first, row, problem.n_rows);
  }
  return first;
}
#endif

template <int Bits, Dtype D>
void run_panels(const Problem& problem, int64_t first, int64_t last) {
#if defined(GANGLINE_WINOGRAD)
  if (by_winograd(problem.w, problem.n_rows)) first = run_winograd_panels<D>(problem, first, last);
#endif
#if defined(GANGLINE_TILES)
  const Tiles tiles(tile_columns(problem.w.group_size));
#endif
  // A multiple of every block, so that only the last chunk has small ones.
  constexpr int64_t kMultiple = 8 * kBlockRows;
  int64_t chunk = kRowsBytes / problem.w.k / kMultiple * kMultiple;
  if (chunk < kMultiple) chunk = kMultiple;
  for (int64_t start = 0; start < problem.n_rows; start += chunk) {
    const int64_t end = start + chunk < problem.n_rows ? start + chunk : problem.n_rows;
    int64_t panel = first;
    if (end - start > 1)  // a single row streams one panel after the other
      for (; panel + kPackedPanels <= last; panel += kPackedPanels)
        run_rows<Bits, D, kPackedPanels>(problem, panel, start, end);
    for (; panel < last; ++panel) run_rows<Bits, D, 1>(problem, panel, start, end);
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
                   const Output& out, uint8_t* scratch) {
  const Problem problem{x, t, w, out, scratch};
  if (w.bits == 4) return run_dtype<4>(problem, first, last);
  return run_dtype<8>(problem, first, last);
}

int64_t packed_scratch(const Packed& w, int64_t t) {
#if defined(GANGLINE_WINOGRAD)
  if (by_winograd(w, t))
    return w.k / w.group_size * WinogradGroup<kPackedPanels>::bytes(w.group_size);
#endif
  static_cast<void>(w);
  static_cast<void>(t);
  return 0;
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
