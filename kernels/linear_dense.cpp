// y = x @ w.T for dense f32, f16 and bf16 matrices, read where they lie.
#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

template <Dtype D>
struct DenseTile {
  const float* x;  // (t, k)
  int64_t x_stride;
  const uint8_t* w;  // (n, k)
  int64_t k;

  template <int N, int T>
  void run(int64_t n, int64_t t, const Output& out) const {
    const int64_t bytes = Numbers<D>::bytes, row = k * bytes;
    const uint8_t* rows = w + n * row;
    const float* xs = x + t * x_stride;
    F32x16 sums[N][T];
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < T; ++j) sums[i][j] = zero();
    int64_t at = 0;
    for (; at + kLanes <= k; at += kLanes) {
      F32x16 xv[T];
      for (int j = 0; j < T; ++j) xv[j] = load(xs + j * x_stride + at);
      for (int i = 0; i < N; ++i) {
        const F32x16 wv = Numbers<D>::load16(rows + i * row + at * bytes);
        for (int j = 0; j < T; ++j) sums[i][j] = fma(wv, xv[j], sums[i][j]);
      }
    }
    if (at < k) {
      for (int i = 0; i < N; ++i) {
        const F32x16 wv = numbers_first<D>(rows + i * row + at * bytes, k - at);
        for (int j = 0; j < T; ++j)
          sums[i][j] = fma(wv, load_first(xs + j * x_stride + at, k - at), sums[i][j]);
      }
    }
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < T; ++j) out.write(t + j, n + i, reduce_add(sums[i][j]));
  }
};

template <Dtype D>
void unpack(const uint8_t* row, int64_t k, float* y) {
  int64_t at = 0;
  for (; at + kLanes <= k; at += kLanes)
    store(y + at, Numbers<D>::load16(row + at * Numbers<D>::bytes));
  if (at < k) store_first(y + at, k - at, numbers_first<D>(row + at * Numbers<D>::bytes, k - at));
}

}  // namespace

void linear_dense(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
                  int64_t last, const Output& out) {
  switch (w.dtype) {
    case Dtype::f32:
      return walk(DenseTile<Dtype::f32>{x, x_stride, w.data, w.k}, first, last, t, out);
    case Dtype::f16:
      return walk(DenseTile<Dtype::f16>{x, x_stride, w.data, w.k}, first, last, t, out);
    case Dtype::bf16:
      return walk(DenseTile<Dtype::bf16>{x, x_stride, w.data, w.k}, first, last, t, out);
  }
}

void unpack_row(const Matrix& w, int64_t row, float* y) {
  const uint8_t* p = w.data + row * row_bytes(w);
  switch (w.dtype) {
    case Dtype::f32: return unpack<Dtype::f32>(p, w.k, y);
    case Dtype::f16: return unpack<Dtype::f16>(p, w.k, y);
    case Dtype::bf16: return unpack<Dtype::bf16>(p, w.k, y);
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
