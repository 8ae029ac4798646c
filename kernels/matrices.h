// Matrices and the rows that they are multiplied with, as kernels take them.
#pragma once

#include <cstdint>

#include "rules.h"

namespace gangline {

// A matrix (n, k) as it lies in a checkpoint, rows without gaps.
// bits == 0: dense numbers of `dtype`; `linear` takes only these. bits from 2 to 6, or 8: whole
// numbers q, a row being one stream of bits, lowest first, meaning scale * q + offset; scales and
// offsets are (n, k / group_size) of `dtype`, and k is a multiple of group_size (16, 32, 64 or 128).
struct Matrix {
  const uint8_t* data;
  const uint8_t* scales;
  const uint8_t* offsets;
  int64_t n;
  int64_t k;
  int32_t bits;
  int32_t group_size;
  Dtype dtype;
};

inline int64_t dtype_bytes(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }

// Bytes of one row of the matrix, without scales and offsets.
inline int64_t row_bytes(const Matrix& w) {
  return w.bits ? w.k * w.bits / 8 : w.k * dtype_bytes(w.dtype);
}

// A group-affine matrix (n, k) repacked into panels of 16 rows. A panel is its groups in order; a
// group is 16 scales, 16 offsets, then 64-byte vectors of codes (pack.cpp says in which order).
// Rows that fill up the last panel are never written out. Codes have 4 bits, or 8 if they need more.
struct Packed {
  const uint8_t* data;  // 64-byte aligned
  int64_t n;
  int64_t k;
  int32_t bits;
  int32_t group_size;
  Dtype dtype;

  int64_t n_panels() const { return (n + 15) / 16; }
  int64_t n_bytes() const { return n_panels() * panel_bytes(); }
  int64_t panel_bytes() const {
    return k / group_size * (32 * dtype_bytes(dtype) + int64_t{16} * group_size * bits / 8);
  }
};

// A group of a row of activations as signed bytes: number c is about factor * code[c]. A group with
// a NaN or an infinity has a factor of NaN.
struct GroupFactors {
  float factor;
  float sum_factor;  // factor * sum
  int32_t sum;       // of the codes
  int32_t pairs;     // what winograd.h needs besides, on its path
};

// Rows of activations (t, k) for packed matrices, block after block (see block_rows). The codes of
// a block of T rows are (k / c, T, c) and its factors (k / group_size, T); c is 4, or a tile's
// columns where the path has tiles and the block fills one.
struct QuantizedRows {
  const int8_t* codes;
  const GroupFactors* groups;
};

// One row of a block, to be written.
struct QuantizedRow {
  int8_t* codes;  // of the block
  GroupFactors* groups;
  int64_t rows;  // of the block
  int64_t row;
};

// Rows go through packed matrices in blocks of `most`; what is left in powers of two below that.
inline int64_t block_rows(int64_t rows_left, int64_t most) {
  if (rows_left >= most) return most;
  int64_t rows = 1;
  while (2 * rows <= rows_left && 2 * rows < most) rows *= 2;
  return rows;
}

}  // namespace gangline
