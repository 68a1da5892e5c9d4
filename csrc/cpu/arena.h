// Scratch memory, shared out.
#pragma once

#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

// Hands out runs of one allocation, each aligned to 64 bytes. With no base it measures.
class Arena {
 public:
  explicit Arena(void* base = nullptr) : at_(reinterpret_cast<uintptr_t>(base)) {}
  template <class T>
  T* take(int64_t count) {
    T* p = reinterpret_cast<T*>(at_);
    at_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
  size_t used() const { return size_t(at_); }

 private:
  uintptr_t at_;
};

}  // namespace MIMIC_ISA
}  // namespace mimic
