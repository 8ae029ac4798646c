// The table of this path's kernels.
#include "linear.h"
#include "rows.h"

#define GANGLINE_JOIN(a, b) a##b
#define GANGLINE_NAME(path) GANGLINE_JOIN(kernels_, path)
#define GANGLINE_QUOTE(name) #name
#define GANGLINE_STRING(name) GANGLINE_QUOTE(name)

namespace gangline {
namespace GANGLINE_PATH {
namespace {

void linear(const float* x, int64_t x_stride, int64_t t, const Matrix& w, int64_t first,
            int64_t last, const float* bias, float* y, int64_t y_stride, bool add) {
  const auto run = w.bits ? linear_quantized : linear_dense;
  run(x, x_stride, t, w, first, last, Output{y, y_stride, bias, add});
}

void unpack_row(const Matrix& w, int64_t row, float* y) {
  (w.bits ? unpack_quantized : unpack_dense)(w, row, y);
}

}  // namespace
}  // namespace GANGLINE_PATH

const Kernels& GANGLINE_NAME(GANGLINE_PATH)() {
  using namespace GANGLINE_PATH;
  static const Kernels table = {
      GANGLINE_STRING(GANGLINE_PATH), linear, unpack_row, rms_norm, rope, append, attend, gate, sum,
  };
  return table;
}

}  // namespace gangline
