// Rotary position embedding of pairs (i, i + half).
#include "rows.h"

namespace gangline {
namespace GANGLINE_PATH {

void rope(float* heads, int64_t n_heads, int64_t head_dim, int64_t half, const float* cos,
          const float* sin) {
  for (int64_t head = 0; head < n_heads; ++head, heads += head_dim) {
    float* a = heads;
    float* b = heads + half;
    int64_t at = 0;
    for (; at + kLanes <= half; at += kLanes) {
      const F32x16 c = load(cos + at), s = load(sin + at), u = load(a + at), v = load(b + at);
      store(a + at, fnma(v, s, mul(u, c)));
      store(b + at, fma(u, s, mul(v, c)));
    }
    const int64_t rest = half - at;
    if (rest) {
      const F32x16 c = load_first(cos + at, rest), s = load_first(sin + at, rest);
      const F32x16 u = load_first(a + at, rest), v = load_first(b + at, rest);
      store_first(a + at, rest, fnma(v, s, mul(u, c)));
      store_first(b + at, rest, fma(u, s, mul(v, c)));
    }
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
