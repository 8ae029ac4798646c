// y = x @ w.T for group-affine matrices of 4 and 8 bits, in the layout of MLX checkpoints.
//
// A weight is the float scale * q + offset, rounded once; sums then run as in linear_dense.cpp.
#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

template <class Affine, int Bits, Dtype D>
struct QuantizedTile {
  const float* x;  // (t, k)
  int64_t x_stride;
  const Matrix& w;

  template <int N, int T>
  void run(int64_t n, int64_t t, const Output& out) const {
    const int64_t k = w.k, group_size = w.group_size, n_groups = k / group_size;
    const int64_t row = k * Bits / 8, group_row = n_groups * Numbers<D>::bytes;
    const uint8_t* rows = w.data + n * row;
    const uint8_t* scales = w.scales + n * group_row;
    const uint8_t* offsets = w.offsets + n * group_row;
    const float* xs = x + t * x_stride;
    F32x16 sums[N][T];
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < T; ++j) sums[i][j] = zero();
    for (int64_t group = 0; group < n_groups; ++group) {
      Affine affine[N];
      for (int i = 0; i < N; ++i) {
        const int64_t at = i * group_row + group * Numbers<D>::bytes;
        affine[i] = Affine(Numbers<D>::one(scales + at), Numbers<D>::one(offsets + at));
      }
      const int64_t end = (group + 1) * group_size;
      for (int64_t at = group * group_size; at < end; at += kLanes) {
        F32x16 xv[T];
        for (int j = 0; j < T; ++j) xv[j] = load(xs + j * x_stride + at);
        for (int i = 0; i < N; ++i) {
          const F32x16 wv = affine[i].load16(rows + i * row + at * Bits / 8);
          for (int j = 0; j < T; ++j) sums[i][j] = fma(wv, xv[j], sums[i][j]);
        }
      }
    }
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < T; ++j) out.write(t + j, n + i, reduce_add(sums[i][j]));
  }

  void unpack(int64_t n, float* y) const {
    const int64_t bytes = Numbers<D>::bytes, n_groups = w.k / w.group_size;
    const uint8_t* numbers = w.data + n * w.k * Bits / 8;
    for (int64_t at = 0; at < w.k; at += kLanes) {
      const int64_t group = (n * n_groups + at / w.group_size) * bytes;
      const Affine affine(Numbers<D>::one(w.scales + group), Numbers<D>::one(w.offsets + group));
      store(y + at, affine.load16(numbers + at * Bits / 8));
    }
  }
};

// Call f with the tile that fits the matrix.
template <class F>
void with_tile(const float* x, int64_t x_stride, const Matrix& w, F f) {
  if (w.bits == 4) {
    switch (w.dtype) {
      case Dtype::f32: return f(QuantizedTile<Affine4, 4, Dtype::f32>{x, x_stride, w});
      case Dtype::f16: return f(QuantizedTile<Affine4, 4, Dtype::f16>{x, x_stride, w});
      case Dtype::bf16: return f(QuantizedTile<Affine4, 4, Dtype::bf16>{x, x_stride, w});
    }
  }
  switch (w.dtype) {
    case Dtype::f32: return f(QuantizedTile<Affine8, 8, Dtype::f32>{x, x_stride, w});
    case Dtype::f16: return f(QuantizedTile<Affine8, 8, Dtype::f16>{x, x_stride, w});
    case Dtype::bf16: return f(QuantizedTile<Affine8, 8, Dtype::bf16>{x, x_stride, w});
  }
}

}  // namespace

void linear_quantized(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
                      int64_t last, const Output& out) {
  with_tile(x, x_stride, w, [&](const auto& tile) { walk(tile, first, last, t, out); });
}

void unpack_quantized(const Matrix& w, int64_t row, float* y) {
  with_tile(nullptr, 0, w, [&](const auto& tile) { tile.unpack(row, y); });
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
