// Streaming reads, to measure what memory gives.
#include "rows.h"

namespace gangline {
namespace GANGLINE_PATH {

float sum(const float* x, int64_t n) {
  F32x16 sums[4] = {zero(), zero(), zero(), zero()};
  int64_t at = 0;
  for (; at + 4 * kLanes <= n; at += 4 * kLanes)
    for (int i = 0; i < 4; ++i) sums[i] = add(sums[i], load(x + at + i * kLanes));
  for (; at < n; at += kLanes)
    sums[0] = add(sums[0], load_first(x + at, n - at < kLanes ? n - at : kLanes));
  return reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
