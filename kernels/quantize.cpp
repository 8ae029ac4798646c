// Rows of activations as signed bytes with one factor per group, for products with packed weights.
#include "linear.h"

namespace gangline {
namespace GANGLINE_PATH {

namespace {

// Below this a group counts as zero: 127 / largest would overflow.
constexpr float kTiny = 1e-30f;

// The largest |x| of a group; NaN where the group holds one (if_less is false for it).
inline float largest_of(const float* x, int64_t n) {
  F32x16 largest = zero();
  F32x16 bad = zero();
  for (int64_t at = 0; at < n; at += kLanes) {
    const F32x16 v = load(x + at);
    const F32x16 size = abs(v);
    largest = if_less(largest, size, size, largest);
    bad = add(bad, sub(v, v));  // NaN for NaN and infinities, else zero
  }
  float lanes[kLanes];
  store(lanes, largest);
  float result = 0.0f;
  for (float lane : lanes)
    if (result < lane) result = lane;
  return result + reduce_add(bad);
}

}  // namespace

void quantize_row(const float* x, int64_t k, int64_t group_size, const QuantizedRow& out) {
  const int64_t columns = block_columns(out.rows, group_size);
  for (int64_t group = 0; group < k / group_size; ++group) {
    const float* from = x + group * group_size;
    int8_t codes[128];
    const float largest = largest_of(from, group_size);
    const bool finite = largest == largest;
    const bool zeros = !finite || largest < kTiny;
    const float factor = finite ? (zeros ? 0.0f : largest / 127.0f) : largest;
    const F32x16 inverse = set1(zeros ? 0.0f : 127.0f / largest);
    int32_t sum = 0;
    for (int64_t at = 0; at < group_size; at += kLanes) {
      const F32x16 v = finite ? load(from + at) : zero();
      store_i8(codes + at, mul(v, inverse));
      for (int64_t i = at; i < at + kLanes; ++i) sum += codes[i];
    }
    int8_t* to = out.codes + group * group_size * out.rows + columns * out.row;
    if (columns == 4)
      for (int64_t at = 0; at < group_size; at += 4) std::memcpy(to + at * out.rows, codes + at, 4);
    else
      for (int64_t at = 0; at < group_size; at += columns)
        std::memcpy(to + at * out.rows, codes + at, static_cast<size_t>(columns));
    out.groups[group * out.rows + out.row] = {factor, factor * static_cast<float>(sum), sum};
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
