#include "dispatch.h"

#include <cstdlib>
#include <new>

namespace mimic {

std::vector<const Isa*> compiled_isas() {
#ifdef MIMIC_X86
  return {&isa_baseline, &isa_avx2, &isa_avx512};
#else
  return {&isa_baseline};
#endif
}

std::vector<const Isa*> runnable_isas() {
  std::vector<const Isa*> isas = {&isa_baseline};
#ifdef MIMIC_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(&isa_avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      isas.push_back(&isa_avx512);
    }
  }
#endif
  return isas;
}

namespace {

constexpr size_t kAlignment = 64;

struct Scratch {
  void* memory = nullptr;
  size_t size = 0;
  ~Scratch() { std::free(memory); }
};

}  // namespace

void* scratch(size_t bytes) {
  thread_local Scratch mine;
  if (bytes > mine.size) {
    std::free(mine.memory);
    mine.size = 0;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    mine.memory = std::aligned_alloc(kAlignment, rounded);
    if (!mine.memory) throw std::bad_alloc();
    mine.size = rounded;
  }
  return mine.memory;
}

}  // namespace mimic
