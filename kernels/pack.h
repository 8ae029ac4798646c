// Group-affine matrices as the kernels like to read them: panels of 16 rows, one stream of memory.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels.h"

namespace gangline {

class Arena;

// The memory of a packed matrix: 64-byte aligned, in huge pages where the system has them. Large
// matrices lie one after the other in arenas, so that no page is left half used or small.
class PackedMemory {
 public:
  explicit PackedMemory(size_t bytes);
  uint8_t* data() { return data_; }

 private:
  std::shared_ptr<Arena> arena_;
  uint8_t* data_;
};

// Repack matrix w on all threads.
Packed pack(const Matrix& w, std::shared_ptr<PackedMemory>& memory);

// y (k) = row `row` of a quantized w as floats: scale * q + offset, rounded once.
void unpack_quantized(const Matrix& w, int64_t row, float* y);
// The same from its packed form.
void unpack_packed(const Packed& w, int64_t row, float* y);

}  // namespace gangline
