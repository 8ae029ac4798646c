// Memory that grows to the largest step and is kept; what a thread lends to kernels, which never
// allocate.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace gangline {

// Room for n numbers; what the memory held is lost or not, as it comes.
template <class T>
T* grown(std::vector<T>& memory, int64_t n) {
  if (memory.size() < static_cast<size_t>(n)) memory.resize(static_cast<size_t>(n));
  return memory.data();
}

// What linear_packed needs on this thread, or null; valid until the next call. It grows to the
// largest matrix and is kept.
inline uint8_t* packed_scratch(const Packed& w, int64_t t, const Kernels& run) {
  const int64_t bytes = run.packed_scratch(w, t);
  if (bytes == 0) return nullptr;
  thread_local std::vector<uint8_t> memory;
  constexpr size_t kAlignment = 64;
  uint8_t* data = grown(memory, bytes + int64_t{kAlignment});
  return data + (kAlignment - reinterpret_cast<uintptr_t>(data) % kAlignment) % kAlignment;
}

}  // namespace gangline
