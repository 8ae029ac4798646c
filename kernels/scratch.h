// Memory that a thread lends to kernels, which never allocate.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace gangline {

// What linear_packed needs on this thread, or null; valid until the next call. It grows to the
// largest matrix and is kept.
inline uint8_t* packed_scratch(const Packed& w, int64_t t, const Kernels& run) {
  const int64_t bytes = run.packed_scratch(w, t);
  if (bytes == 0) return nullptr;
  thread_local std::vector<uint8_t> memory;
  constexpr size_t kAlignment = 64;
  if (memory.size() < static_cast<size_t>(bytes) + kAlignment)
    memory.resize(static_cast<size_t>(bytes) + kAlignment);
  const size_t past = reinterpret_cast<uintptr_t>(memory.data()) % kAlignment;
  return memory.data() + (kAlignment - past) % kAlignment;
}

}  // namespace gangline
