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
  return reduce_max(largest) + reduce_add(bad);
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
    const F32x16 magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds as store_i8 does
    F32x16 sums = zero();                    // of whole numbers, so exact
    for (int64_t at = 0; at < group_size; at += kLanes) {
      const F32x16 v = finite ? mul(load(from + at), inverse) : zero();
      store_i8(codes + at, v);
      sums = add(sums, sub(add(v, magic), magic));
    }
    const int32_t sum = static_cast<int32_t>(reduce_add(sums));
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
