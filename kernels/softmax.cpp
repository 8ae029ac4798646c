// Softmax of a row of numbers.
#include <cmath>

#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {

void softmax(float* x, int64_t n) {
  float largest = -HUGE_VALF;
  for (int64_t i = 0; i < n; ++i)
    if (largest < x[i]) largest = x[i];
  F32x16 total = zero();
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    const F32x16 w = exp(sub(load_first(x + at, some), set1(largest)));
    total = add(total, if_less(iota(), set1(static_cast<float>(some)), w, zero()));
    store_first(x + at, some, w);
  }
  const F32x16 sum = set1(reduce_add(total));
  for (int64_t at = 0; at < n; at += kLanes) {
    const int64_t some = n - at < kLanes ? n - at : kLanes;
    store_first(x + at, some, div(load_first(x + at, some), sum));
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
