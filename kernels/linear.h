// What dense and packed matrices share: the walk over tiles, and how results are written.
//
// A tile is N rows of the matrix times T rows of x. Each of its N * T sums has its own 16 lanes, so
// tiles of any size give the same bits; their size only decides how often a number is loaded.
#pragma once

#include "simd.h"

namespace gangline {
namespace GANGLINE_PATH {

// Rows of x that are worked on while they stay in the cache, the matrix streaming past.
constexpr int64_t kRowsAtOnce = 64;

// Blocks of rows of x for packed matrices: their largest size, and c of QuantizedRows.
#if defined(GANGLINE_TILES)
constexpr int64_t kBlockRows = kTileRows;
inline int64_t tile_columns(int64_t group_size) { return group_size < 64 ? group_size : 64; }
inline int64_t block_columns(int64_t rows, int64_t group_size) {
  return rows == kTileRows ? tile_columns(group_size) : 4;
}
#else
constexpr int64_t kBlockRows = kPackedRows;
inline int64_t block_columns(int64_t, int64_t) { return 4; }
#endif

// Four codes of x.
inline int32_t word(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return four;
}

struct Output {
  float* y;  // (t, n)
  int64_t stride;
  const float* bias;  // (n) or null
  bool add;

  void write(int64_t t, int64_t n, float value) const {
    float* to = y + t * stride + n;
    if (bias) value += bias[n];
    *to = add ? *to + value : value;
  }

  // The first `used` of 16 results for columns n...
  void write16(int64_t t, int64_t n, int64_t used, F32x16 values) const {
    float* to = y + t * stride + n;
    if (used == kLanes) {
      if (bias) values = gangline::GANGLINE_PATH::add(values, load(bias + n));
      store(to, add ? gangline::GANGLINE_PATH::add(load(to), values) : values);
      return;
    }
    float lanes[kLanes];
    store(lanes, values);
    for (int64_t i = 0; i < used; ++i) write(t, n + i, lanes[i]);
  }
};

// Walk rows first..last of the matrix and all rows of x. Tile::run<N, T>(...) computes a tile.
template <class Tile, int N>
inline void walk_rows(const Tile& tile, int64_t n, int64_t t, int64_t t_end, const Output& out) {
  for (; t + kTileT <= t_end; t += kTileT) tile.template run<N, kTileT>(n, t, out);
  for (; t < t_end; ++t) tile.template run<N, 1>(n, t, out);
}

template <class Tile>
inline void walk(const Tile& tile, int64_t first, int64_t last, int64_t n_rows, const Output& out) {
  if (n_rows == 1) {  // decoding one sequence: more rows of the matrix hide each other's latency
    int64_t n = first;
    for (; n + kTileNAlone <= last; n += kTileNAlone) tile.template run<kTileNAlone, 1>(n, 0, out);
    for (; n < last; ++n) tile.template run<1, 1>(n, 0, out);
    return;
  }
  for (int64_t t = 0; t < n_rows; t += kRowsAtOnce) {
    const int64_t t_end = t + kRowsAtOnce < n_rows ? t + kRowsAtOnce : n_rows;
    int64_t n = first;
    for (; n + kTileN <= last; n += kTileN) walk_rows<Tile, kTileN>(tile, n, t, t_end, out);
    for (; n < last; ++n) walk_rows<Tile, 1>(tile, n, t, t_end, out);
  }
}

void linear_dense(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
                  int64_t last, const Output& out);
void linear_packed(const QuantizedRows& x, int64_t t, const Packed& w, int64_t first, int64_t last,
                   const Output& out, uint8_t* scratch);
int64_t packed_scratch(const Packed& w, int64_t t);
void quantize_row(const float* x, int64_t k, int64_t group_size, const QuantizedRow& out);
void unpack_row(const Matrix& w, int64_t row, float* y);

}  // namespace GANGLINE_PATH
}  // namespace gangline
