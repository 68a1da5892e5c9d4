// What the microkernel multiplies: numbers of its own type, or pairs of bfloat16.
#pragma once

#include <type_traits>

#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

// Two bfloat16 in a 32-bit word, the first one in the low half.
struct Pair {
  uint32_t word;
};

// The same, for machines whose vdpbf16ps multiplies two of them and adds both products at once.
struct NativePair {
  uint32_t word;
};

// Numbers that an element holds.
template <class E>
constexpr int kNumbers = std::is_same<E, Pair>::value || std::is_same<E, NativePair>::value ? 2 : 1;
template <class E>
MIMIC_INLINE int64_t elements_of(int64_t n) {
  return ceil_div(n, int64_t(kNumbers<E>));
}
// Elements of the 32 rows of a panel.
template <class E>
constexpr int kLine = kPanel / kNumbers<E>;

// Both halves as floats.
struct Halves {
  Vector<float> low, high;
};

template <class E>
struct OperandOf {
  using type = Vector<E>;
};
template <>
struct OperandOf<Pair> {
  using type = Halves;
};
template <>
struct OperandOf<NativePair> {
  using type = Vector<uint32_t>;
};
template <class E>
using Operand = typename OperandOf<E>::type;

MIMIC_INLINE Halves halves(Vector<uint32_t> words) {
  return {same_bits<Vector<float>>(words << 16), same_bits<Vector<float>>(words & 0xFFFF0000u)};
}

template <class E>
MIMIC_INLINE Operand<E> load_operand(const E* p) {
  return load<Vector<E>>(p);
}
MIMIC_INLINE Halves load_operand(const Pair* p) { return halves(load<Vector<uint32_t>>(p)); }
MIMIC_INLINE Vector<uint32_t> load_operand(const NativePair* p) { return load<Vector<uint32_t>>(p); }

template <class E>
MIMIC_INLINE Operand<E> broadcast_operand(E value) {
  return value - Vector<E>{};
}
MIMIC_INLINE Halves broadcast_operand(Pair pair) { return halves(Vector<uint32_t>{} + pair.word); }
MIMIC_INLINE Vector<uint32_t> broadcast_operand(NativePair pair) { return Vector<uint32_t>{} + pair.word; }

// sum + a b.
template <class V>
MIMIC_INLINE V multiply_add(V sum, V a, V b) {
  return sum + a * b;
}
MIMIC_INLINE Vector<float> multiply_add(Vector<float> sum, Halves a, Halves b) {
  return sum + a.low * b.low + a.high * b.high;
}
MIMIC_INLINE Vector<float> multiply_add(Vector<float> sum, Vector<uint32_t> a, Vector<uint32_t> b) {
#if defined(__AVX512F__)
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
#else
  return multiply_add(sum, halves(a), halves(b));
#endif
}

}  // namespace MIMIC_ISA
}  // namespace mimic
