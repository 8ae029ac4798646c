#include "amx.h"

#if defined(GANGLINE_AMX)

#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "kernels.h"

namespace gangline {
namespace {

// Intel 64 Software Developer's Manual, vol. 2A, CPUID; XCR0 says what the system saves.
bool processor_has_tiles() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & (1u << 27))) return false;  // OSXSAVE
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned tile_int8 = (1u << 24) | (1u << 25);
  if ((d & tile_int8) != tile_int8) return false;
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const unsigned tile_state = (1u << 17) | (1u << 18);
  return (low & tile_state) == tile_state;
}

// https://docs.kernel.org/arch/x86/xstate.html: all threads of the process may use tiles then.
bool kernel_permits() {
  constexpr long kRequest = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// y (t, n) by one path, for one kind of weight; all bytes are those of a small counter.
std::vector<float> product(const Kernels& run, int bits, int group_size) {
  const int64_t n = 33, k = 2 * group_size, t = 101;
  uint32_t state = 1;
  const auto next = [&state] { return (state = state * 1664525u + 1013904223u) >> 16; };
  Packed w{nullptr, n, k, bits, group_size, Dtype::bf16};
  const size_t bytes = static_cast<size_t>(w.n_panels() * w.panel_bytes());
  std::vector<uint8_t> memory(bytes + 64);
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
  uint8_t* data = memory.data() + (64 - address % 64) % 64;
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>(next() & 0x3f);
  w.data = data;

  std::vector<float> x(static_cast<size_t>(t * k)), y(static_cast<size_t>(t * n));
  for (float& number : x) number = static_cast<float>(next()) - 32768.0f;
  std::vector<int8_t> codes(x.size());
  std::vector<GroupFactors> groups(static_cast<size_t>(t * 2));
  for (int64_t start = 0; start < t;) {
    const int64_t rows = block_rows(t - start, run.packed_rows);
    for (int64_t row = 0; row < rows; ++row)
      run.quantize_row(x.data() + (start + row) * k, k, group_size,
                       {codes.data() + start * k, groups.data() + start * 2, rows, row});
    start += rows;
  }
  run.linear_packed({codes.data(), groups.data()}, t, w, 0, w.n_panels(), nullptr, y.data(), n,
                    false, nullptr);
  return y;
}

bool products_agree() {
  for (int bits : {4, 8}) {
    for (int group_size : {32, 64, 128}) {
      const std::vector<float> tiles = product(kernels_amx(), bits, group_size);
      const std::vector<float> vectors = product(kernels_avx512(), bits, group_size);
      if (std::memcmp(tiles.data(), vectors.data(), tiles.size() * sizeof(float))) return false;
    }
  }
  return true;
}

thread_local bool trying = false;
sigjmp_buf illegal_at;
struct sigaction previous;

void on_illegal(int, siginfo_t*, void*) {
  if (trying) siglongjmp(illegal_at, 1);
  // Another thread's: what it would have met happens when its instruction is tried again.
  sigaction(SIGILL, &previous, nullptr);
}

// What a jump leaves behind (two small vectors) is the price of not starting a process.
bool products_agree_if_legal() {
  struct sigaction ours;
  std::memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = on_illegal;
  ours.sa_flags = SA_SIGINFO;
  sigemptyset(&ours.sa_mask);
  if (sigaction(SIGILL, &ours, &previous)) return false;
  volatile bool agree = false;
  trying = true;
  if (!sigsetjmp(illegal_at, 1)) agree = products_agree();
  trying = false;
  sigaction(SIGILL, &previous, nullptr);
  return agree;
}

}  // namespace

bool amx_works() {
  static const bool works =
      processor_has_tiles() && kernel_permits() && products_agree_if_legal();
  return works;
}

}  // namespace gangline

#else

namespace gangline {

bool amx_works() { return false; }

}  // namespace gangline

#endif
