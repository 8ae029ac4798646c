#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

#include "pool.h"
#include "simd_scalar.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_MSC_VER)
#include <malloc.h>
#endif

namespace gangline {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr size_t kArenaBytes = size_t{64} << 20;
constexpr size_t kLargeBytes = size_t{256} << 10;

// Sixteen rows of one group, 4 bits: byte 4 r + i of vector j has column 4 j + i of row r below and
// column size / 2 + 4 j + i above. In a row of the source, column c is nibble c % 2 of byte c / 2.
template <int64_t Size>
void pack_group4(const uint8_t* const* rows, int64_t at, uint8_t* out) {
  for (int64_t r = 0; r < 16; ++r) {
    const uint8_t* low = rows[r] + at / 2;
    const uint8_t* high = low + Size / 4;
    uint8_t bytes[Size / 2];
    for (int64_t i = 0; i < Size / 4; ++i) {  // a loop that compilers make vectors of
      const uint8_t a = low[i], b = high[i];
      bytes[2 * i] = static_cast<uint8_t>((a & 15) | b << 4);
      bytes[2 * i + 1] = static_cast<uint8_t>(a >> 4 | (b & 0xf0));
    }
    for (int64_t j = 0; j < Size / 8; ++j) std::memcpy(out + 64 * j + 4 * r, bytes + 4 * j, 4);
  }
}

template <int64_t Size>
void pack_group8(const uint8_t* const* rows, int64_t at, uint8_t* out) {
  for (int64_t r = 0; r < 16; ++r)
    for (int64_t j = 0; j < Size / 4; ++j)
      std::memcpy(out + 64 * j + 4 * r, rows[r] + at + 4 * j, 4);
}

using PackGroup = void (*)(const uint8_t* const* rows, int64_t at, uint8_t* out);

PackGroup pack_group_of(const Packed& w) {
  const bool four = w.bits == 4;
  switch (w.group_size) {
    case 16: return four ? pack_group4<16> : pack_group8<16>;
    case 32: return four ? pack_group4<32> : pack_group8<32>;
    case 64: return four ? pack_group4<64> : pack_group8<64>;
    default: return four ? pack_group4<128> : pack_group8<128>;
  }
}

// n codes of a stream of `bits` each, lowest bits first, as bytes.
void spread_codes(const uint8_t* from, int bits, int64_t n, uint8_t* codes) {
  uint32_t held = 0;
  int n_held = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (n_held < bits) {
      held |= static_cast<uint32_t>(*from++) << n_held;
      n_held += 8;
    }
    codes[i] = static_cast<uint8_t>(held & ((1u << bits) - 1));
    held >>= bits;
    n_held -= bits;
  }
}

// Rows of other bits than a panel has, in its bits.
class WidenedRows {
 public:
  WidenedRows(const Matrix& w, const Packed& form)
      : w_(w), four_(form.bits == 4), codes_(static_cast<size_t>(w.k)),
        rows_(static_cast<size_t>(16 * w.k)) {}

  // Row `id` as row r of a panel; valid until the next panel's row r.
  const uint8_t* widen(int64_t id, int64_t r) {
    uint8_t* row = rows_.data() + r * w_.k;
    const uint8_t* from = w_.data + id * row_bytes(w_);
    spread_codes(from, w_.bits, w_.k, four_ ? codes_.data() : row);
    if (four_)
      for (size_t c = 0; c < codes_.size(); c += 2)
        row[c / 2] = static_cast<uint8_t>(codes_[c] | codes_[c + 1] << 4);
    return row;
  }

 private:
  const Matrix& w_;
  bool four_;
  std::vector<uint8_t> codes_, rows_;
};

// Rows beyond the last one repeat it; their results are not written.
void pack_panel(const Matrix& w, const Packed& form, int64_t panel, WidenedRows* widened,
                uint8_t* out) {
  const int64_t size = w.group_size, n_groups = w.k / size, number = dtype_bytes(w.dtype);
  const PackGroup pack_group = pack_group_of(form);
  const uint8_t* rows[16];
  int64_t ids[16];
  for (int64_t r = 0; r < 16; ++r) {
    ids[r] = panel * 16 + r < w.n ? panel * 16 + r : w.n - 1;
    rows[r] = widened ? widened->widen(ids[r], r) : w.data + ids[r] * row_bytes(w);
  }
  for (int64_t group = 0; group < n_groups; ++group) {
    for (const uint8_t* from : {w.scales, w.offsets}) {
      for (int64_t id : ids) {
        std::memcpy(out, from + (id * n_groups + group) * number, static_cast<size_t>(number));
        out += number;
      }
    }
    pack_group(rows, group * size, out);
    out += size * 16 * form.bits / 8;
  }
}

float one_number(const uint8_t* p, Dtype dtype) {
  if (dtype == Dtype::f32) {
    float x;
    std::memcpy(&x, p, 4);
    return x;
  }
  uint16_t half;
  std::memcpy(&half, p, 2);
  if (dtype == Dtype::f16) return scalar::one_f16(half);
  return scalar::float_of(static_cast<uint32_t>(half) << 16);
}

}  // namespace

// Memory that is given out piece by piece and given back as a whole, with its last piece.
class Arena {
 public:
  explicit Arena(size_t bytes) {
    const size_t alignment = bytes >= size_t{kHugePage} ? size_t{kHugePage} : 64;
    size_ = (bytes + alignment - 1) / alignment * alignment;
#if defined(_MSC_VER)
    data_ = static_cast<uint8_t*>(_aligned_malloc(size_, alignment));
#else
    void* memory = nullptr;
    data_ = posix_memalign(&memory, alignment, size_) ? nullptr : static_cast<uint8_t*>(memory);
#endif
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == size_t{kHugePage}) madvise(data_, size_, MADV_HUGEPAGE);
#endif
  }
  ~Arena() {
#if defined(_MSC_VER)
    _aligned_free(data_);
#else
    std::free(data_);
#endif
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // A piece of it, or null where not enough is left.
  uint8_t* take(size_t bytes) {
    if (size_ - used_ < bytes) return nullptr;
    uint8_t* piece = data_ + used_;
    used_ += std::min((bytes + 63) / 64 * 64, size_ - used_);
    return piece;
  }

 private:
  uint8_t* data_;
  size_t size_, used_ = 0;
};

PackedMemory::PackedMemory(size_t bytes) {
  static std::mutex guard;
  static std::weak_ptr<Arena> current;
  if (bytes < kLargeBytes) {
    arena_ = std::make_shared<Arena>(bytes);
    data_ = arena_->take(bytes);
    return;
  }
  const std::lock_guard<std::mutex> lock(guard);
  arena_ = current.lock();
  data_ = arena_ ? arena_->take(bytes) : nullptr;
  if (data_) return;
  arena_ = std::make_shared<Arena>(std::max(bytes, kArenaBytes));
  data_ = arena_->take(bytes);
  current = arena_;
}

Packed pack(const Matrix& w, std::shared_ptr<PackedMemory>& memory) {
  Packed packed{nullptr, w.n, w.k, w.bits <= 4 ? 4 : 8, w.group_size, w.dtype};
  memory = std::make_shared<PackedMemory>(static_cast<size_t>(packed.n_bytes()));
  uint8_t* to = memory->data();
  // New memory is what a load waits for longest. A thread gets a huge page's worth of panels at a
  // time, so that two do not wait for the same page.
  const int64_t at_once = std::max<int64_t>(kHugePage / packed.panel_bytes(), 1);
  const int64_t n_panels = packed.n_panels(), n_units = (n_panels + at_once - 1) / at_once;
  parallel_for(n_units, static_cast<double>(packed.n_bytes()), [&](int64_t first, int64_t last) {
    std::optional<WidenedRows> widened;
    if (w.bits != packed.bits) widened.emplace(w, packed);
    for (int64_t panel = first * at_once; panel < std::min(last * at_once, n_panels); ++panel)
      pack_panel(w, packed, panel, widened ? &*widened : nullptr,
                 to + panel * packed.panel_bytes());
  });
  packed.data = to;
  return packed;
}

void unpack_quantized(const Matrix& w, int64_t row, float* y) {
  const int64_t n_groups = w.k / w.group_size, number = dtype_bytes(w.dtype);
  std::vector<uint8_t> codes(static_cast<size_t>(w.k));
  spread_codes(w.data + row * row_bytes(w), w.bits, w.k, codes.data());
  for (int64_t group = 0; group < n_groups; ++group) {
    const int64_t at = (row * n_groups + group) * number;
    const float scale = one_number(w.scales + at, w.dtype);
    const float offset = one_number(w.offsets + at, w.dtype);
    for (int64_t c = group * w.group_size; c < (group + 1) * w.group_size; ++c)
      y[c] = std::fma(scale, static_cast<float>(codes[static_cast<size_t>(c)]), offset);
  }
}

void unpack_packed(const Packed& w, int64_t row, float* y) {
  const int64_t size = w.group_size, number = dtype_bytes(w.dtype), lane = row % 16;
  const uint8_t* group = w.data + row / 16 * w.panel_bytes();
  for (int64_t start = 0; start < w.k; start += size) {
    const float scale = one_number(group + lane * number, w.dtype);
    const float offset = one_number(group + (16 + lane) * number, w.dtype);
    const uint8_t* codes = group + 32 * number + 4 * lane;
    const int64_t half = w.bits == 4 ? size / 2 : size;
    for (int64_t c = 0; c < size; ++c) {
      const int both = codes[c % half / 4 * 64 + c % 4];
      const int code = w.bits == 8 ? both : c < half ? both & 15 : both >> 4;
      y[start + c] = std::fma(scale, static_cast<float>(code), offset);
    }
    group += 32 * number + 16 * size * w.bits / 8;
  }
}

}  // namespace gangline
