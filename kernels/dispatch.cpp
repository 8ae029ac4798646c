#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "amx.h"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <immintrin.h>
#include <intrin.h>
#elif defined(GANGLINE_X86)
#include <cpuid.h>
#endif
#if defined(GANGLINE_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(GANGLINE_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace gangline {
namespace {

struct Path {
  const char* name;
  bool (*runs_here)();
  const Kernels& (*table)();
  bool (*faster_here)() = nullptr;  // than the paths before it, if null: always
};

#if defined(GANGLINE_X86)
#if defined(_MSC_VER) && !defined(__clang__)
// Intel 64 Software Developer's Manual, vol. 2A, CPUID; XCR0 says which registers the system saves.
bool cpu_has(unsigned long long saved, int leaf1_ecx, int leaf7_ebx, int leaf7_ecx = 0) {
  int leaf[4];
  __cpuid(leaf, 0);
  if (leaf[0] < 7) return false;
  __cpuidex(leaf, 1, 0);
  const int os_saves = 1 << 27;
  if ((leaf[2] & (leaf1_ecx | os_saves)) != (leaf1_ecx | os_saves)) return false;
  if ((_xgetbv(0) & saved) != saved) return false;
  __cpuidex(leaf, 7, 0);
  return (leaf[1] & leaf7_ebx) == leaf7_ebx && (leaf[2] & leaf7_ecx) == leaf7_ecx;
}
constexpr int kFmaF16c = (1 << 12) | (1 << 29);
constexpr int kAvx2 = 1 << 5;
constexpr int kAvx512 = (1 << 16) | (1 << 17) | (1 << 30) | static_cast<int>(1u << 31);
constexpr int kVnni = 1 << 11;
bool has_avx2() { return cpu_has(0x6, kFmaF16c, kAvx2); }
bool has_avxvnni() {
  if (!has_avx2()) return false;
  int leaf[4];
  __cpuidex(leaf, 7, 1);
  return (leaf[0] & (1 << 4)) != 0;
}
bool has_avx512() { return cpu_has(0xe6, kFmaF16c, kAvx2 | kAvx512, kVnni); }
#else
bool has_f16c() {  // which Clang 14's builtin does not know; whoever saves AVX registers has it
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29));
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
bool has_avxvnni() {
  if (!has_avx2() || __get_cpuid_max(0, nullptr) < 7) return false;
  unsigned a, b, c, d;
  __cpuid_count(7, 1, a, b, c, d);
  return (a & (1u << 4)) != 0;
}
// Zen 4 and 5: AMD's processors with AVX-512.
[[maybe_unused]] bool is_amd() { return __builtin_cpu_is("amd"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#endif

#if defined(GANGLINE_ARM64)
bool has_dotprod() {
#if defined(__linux__)
  constexpr unsigned long kAsimdDotProduct = 1ul << 20;  // HWCAP_ASIMDDP of the kernel's hwcap.h
  return (getauxval(AT_HWCAP) & kAsimdDotProduct) != 0;
#else
  return true;  // every Apple silicon; Windows on Arm asks for Armv8.2 since version 11
#endif
}
#if defined(GANGLINE_I8MM)
bool has_i8mm() {
#if defined(__linux__)
  constexpr unsigned long kI8mm = 1ul << 13;  // HWCAP2_I8MM
  return has_dotprod() && (getauxval(AT_HWCAP2) & kI8mm) != 0;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}
#endif
#endif

// In order of speed, but for those that say where they are faster.
const Path kPaths[] = {
#if defined(GANGLINE_TILE_MODEL)  // in tests
    {"tile_model", [] { return true; }, kernels_tile_model},
#endif
    {"scalar", [] { return true; }, kernels_scalar},
#if defined(GANGLINE_X86)
    {"avx2", has_avx2, kernels_avx2},
    {"avxvnni", has_avxvnni, kernels_avxvnni},
    {"avx512", has_avx512, kernels_avx512},
#endif
#if defined(GANGLINE_ZEN4)
    {"zen4", has_avx512, kernels_zen4, is_amd},
#endif
#if defined(GANGLINE_AMX)
    {"amx", [] { return has_avx512() && amx_works(); }, kernels_amx},
#endif
#if defined(GANGLINE_ARM64)
    {"neon", [] { return true; }, kernels_neon},
    {"dotprod", has_dotprod, kernels_dotprod},
#if defined(GANGLINE_I8MM)
    {"i8mm", has_i8mm, kernels_i8mm},
#endif
#endif
};

const Kernels& find(const std::string& name) {
  std::string known;
  for (const Path& path : kPaths) {
    if (name == path.name) {
      if (path.runs_here()) return path.table();
      throw std::invalid_argument("kernel path `" + name + "` cannot run on this processor");
    }
    known += std::string(known.empty() ? "" : ", ") + path.name;
  }
  throw std::invalid_argument("kernel path `" + name + "` is not in this build, which has " +
                              known);
}

const Kernels& first_choice() {
  const char* forced = std::getenv("GANGLINE_CPU");
  if (forced && *forced) {
    try {
      return find(forced);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument("GANGLINE_CPU: " + std::string(error.what()));
    }
  }
  return find(available_paths().back());
}

std::atomic<const Kernels*> current{nullptr};

}  // namespace

std::vector<std::string> available_paths() {
  std::vector<std::string> names;
  for (const Path& path : kPaths) {
    if (!path.runs_here()) continue;
    const bool faster = !path.faster_here || path.faster_here();
    names.insert(faster ? names.end() : names.begin(), path.name);
  }
  return names;
}

const Kernels& kernels() {
  const Kernels* chosen = current.load(std::memory_order_acquire);
  if (!chosen) current.store(chosen = &first_choice(), std::memory_order_release);
  return *chosen;
}

void use_path(const std::string& name) { current.store(&find(name), std::memory_order_release); }

}  // namespace gangline
