#include "dispatch.h"

#include <cstdlib>

#include "cpu/own_memory.h"

#if defined(MIMIC_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mimic {

namespace {

inline bool always() { return true; }

#ifdef MIMIC_X86
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

inline bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// The processor multiplies tiles of bfloat16, and the system lets this process have the registers, which are large.
inline bool has_amx() {
#ifdef __linux__
  if (!has_avx512_bf16()) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// Slowest first. CMake's PYMIMIC_ISAS says which are compiled.
constexpr struct {
  const Isa* isa;
  bool (*runs_here)();
} builds[] = {
#ifdef MIMIC_HAS_baseline
    {&baseline::isa_amx_model, always},
    {&baseline::isa, always},
#endif
#ifdef MIMIC_HAS_avx2
    {&avx2::isa, has_avx2},
#endif
#ifdef MIMIC_HAS_avx512
    {&avx512::isa, has_avx512},
    {&avx512::isa_bf16, has_avx512_bf16},
    {&avx512::isa_amx, has_amx},
#endif
};

}  // namespace

std::vector<const Isa*> compiled_isas() {
  std::vector<const Isa*> isas;
  for (const auto& build : builds) isas.push_back(build.isa);
  return isas;
}

std::vector<const Isa*> runnable_isas() {
#ifdef MIMIC_X86
  __builtin_cpu_init();
#endif
  std::vector<const Isa*> isas;
  for (const auto& build : builds)
    if (build.runs_here()) isas.push_back(build.isa);
  return isas;
}

namespace {

constexpr size_t kAlignment = 64;

// In front of a thread's scratch memory, as long as its alignment.
struct alignas(kAlignment) ScratchHeader {
  size_t size;
};

}  // namespace

void* scratch(size_t bytes) {
  static const OwnMemory own;
  auto* mine = static_cast<ScratchHeader*>(own.get());
  if (!mine || bytes > mine->size) {
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment, whole = sizeof(ScratchHeader) + rounded;
    if (whole < bytes) throw OutOfMemory(bytes);
    own.free();
    mine = static_cast<ScratchHeader*>(own.take(std::aligned_alloc(kAlignment, whole), whole));
    mine->size = rounded;
  }
  return mine + 1;
}

}  // namespace mimic
