// Root mean square norm.
#include <cmath>

#include "rows.h"

namespace gangline {
namespace GANGLINE_PATH {

void rms_norm(const float* x, int64_t t, int64_t d, const float* w, float eps, float* y) {
  for (int64_t row = 0; row < t; ++row, x += d, y += d) {
    F32x16 squares = zero();
    int64_t at = 0;
    for (; at + kLanes <= d; at += kLanes) {
      const F32x16 v = load(x + at);
      squares = fma(v, v, squares);
    }
    const int64_t rest = d - at;
    if (rest) {
      const F32x16 v = load_first(x + at, rest);
      squares = fma(v, v, squares);
    }
    const float mean = reduce_add(squares) / static_cast<float>(d);
    const F32x16 scale = set1(1.0f / sqrtf(mean + eps));
    for (at = 0; at + kLanes <= d; at += kLanes)
      store(y + at, mul(mul(load(x + at), scale), load(w + at)));
    if (rest)
      store_first(y + at, rest,
                  mul(mul(load_first(x + at, rest), scale), load_first(w + at, rest)));
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
