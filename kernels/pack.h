// Group-affine matrices as the kernels like to read them: panels of 16 rows, one stream of memory.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels.h"

namespace gangline {

// The memory of a packed matrix: 64-byte aligned, in huge pages where the system has them.
class PackedMemory {
 public:
  explicit PackedMemory(size_t bytes);
  ~PackedMemory();
  PackedMemory(const PackedMemory&) = delete;
  PackedMemory& operator=(const PackedMemory&) = delete;
  uint8_t* data() { return data_; }

 private:
  uint8_t* data_;
};

// What a matrix becomes when it is packed, without its memory.
Packed packed_form(const Matrix& w);

// Repack matrix w on all threads, into memory of its own or to an address that is a multiple of 64.
Packed pack(const Matrix& w, std::shared_ptr<PackedMemory>& memory);
Packed pack(const Matrix& w, uint8_t* to);

// y (k) = row `row` of a quantized w as floats: scale * q + offset, rounded once.
void unpack_quantized(const Matrix& w, int64_t row, float* y);
// The same from its packed form.
void unpack_packed(const Packed& w, int64_t row, float* y);

}  // namespace gangline
