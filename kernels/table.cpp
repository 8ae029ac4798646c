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
  linear_dense(x, x_stride, t, w, first, last, Output{y, y_stride, bias, add});
}

void packed(const QuantizedRows& x, int64_t t, const Packed& w, int64_t first, int64_t last,
            const float* bias, float* y, int64_t y_stride, bool add, uint8_t* scratch) {
  linear_packed(x, t, w, first, last, Output{y, y_stride, bias, add}, scratch);
}

}  // namespace
}  // namespace GANGLINE_PATH

const Kernels& GANGLINE_NAME(GANGLINE_PATH)() {
  using namespace GANGLINE_PATH;
  static const Kernels table = {
      GANGLINE_STRING(GANGLINE_PATH),
      linear,
      packed,
      packed_scratch,
      kBlockRows,
      quantize_row,
      unpack_row,
      rms_norm,
      layer_norm,
      rope,
      append,
      attend,
      gate,
      scale,
      add_scaled,
      sigmoid_gate,
      soft_cap,
      sigmoid,
      softmax,
      convolve,
      unit,
      delta_decay,
      delta_step,
      sum,
  };
  return table;
}

}  // namespace gangline
