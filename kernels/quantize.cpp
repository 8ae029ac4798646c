// Rows of activations as signed bytes with one factor per group, for products with packed weights.
#include "linear.h"

#if defined(GANGLINE_WINOGRAD)
#include "winograd.h"
#endif

namespace gangline {
namespace GANGLINE_PATH {

namespace {

// Codes are at most this: seven bits and a little, so that a code and one of 4 bits together are a
// byte (winograd.h).
constexpr float kLargest = 120.0f;

// Below this a group counts as zero: kLargest / largest would overflow.
constexpr float kTiny = 1e-30f;

// One group of Size numbers; its codes go to `to`, `columns` side by side, rows of a block apart.
template <int64_t Size>
GroupFactors quantize_group(const float* x, int8_t* to, int64_t columns, int64_t rows) {
  constexpr int64_t kVectors = Size / kLanes;
  F32x16 v[kVectors];
  F32x16 most = zero();
  for (int64_t i = 0; i < kVectors; ++i) {
    v[i] = load(x + i * kLanes);
    const F32x16 size = abs(v[i]);
    most = if_less(most, size, size, most);  // false for NaN
  }
  const float largest = reduce_max(most);
  const bool tiny = largest < kTiny;
  const F32x16 inverse = set1(tiny ? 0.0f : kLargest / largest);
  const F32x16 magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds as store_i8 does
  int8_t codes[Size];
  F32x16 sums = zero();  // of whole numbers, so exact; of NaN, so NaN
  for (int64_t i = 0; i < kVectors; ++i) {
    v[i] = mul(v[i], inverse);  // infinity * (kLargest / infinity) is NaN as well
    store_i8(codes + i * kLanes, v[i]);
    v[i] = sub(add(v[i], magic), magic);
    sums = add(sums, v[i]);
  }
  const float sum = reduce_add(sums);
  const bool finite = sum == sum;
  if (!finite) std::memset(codes, 0, sizeof codes);
  if (columns == 4)
    for (int64_t at = 0; at < Size; at += 4) std::memcpy(to + at * rows, codes + at, 4);
  else
    for (int64_t at = 0; at < Size; at += columns)
      std::memcpy(to + at * rows, codes + at, static_cast<size_t>(columns));
  if (!finite) return {sum, sum, 0, 0};
  const float factor = tiny ? 0.0f : largest / kLargest;
  int32_t pairs = 0;
#if defined(GANGLINE_WINOGRAD)
  if (rows >= kWinogradBlock) pairs = winograd_sum<Size>(v);
#endif
  return {factor, factor * sum, static_cast<int32_t>(sum), pairs};
}

template <int64_t Size>
void quantize_groups(const float* x, int64_t k, const QuantizedRow& out) {
  const int64_t columns = block_columns(out.rows, Size);
  for (int64_t group = 0; group < k / Size; ++group)
    out.groups[group * out.rows + out.row] =
        quantize_group<Size>(x + group * Size, out.codes + group * Size * out.rows + columns * out.row,
                             columns, out.rows);
}

}  // namespace

void quantize_row(const float* x, int64_t k, int64_t group_size, const QuantizedRow& out) {
  switch (group_size) {
    case 16: return quantize_groups<16>(x, k, out);
    case 32: return quantize_groups<32>(x, k, out);
    case 64: return quantize_groups<64>(x, k, out);
    case 128: return quantize_groups<128>(x, k, out);
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
