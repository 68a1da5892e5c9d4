// Vectors of the instruction set that this file is being compiled for, by the compiler's own extension.
// MIMIC_ISA names the namespace, so that three builds of one source live in one library.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <utility>

#define MIMIC_INLINE inline __attribute__((always_inline))
#define MIMIC_NOINLINE __attribute__((noinline))
#define MIMIC_UNROLL _Pragma("GCC unroll 16")
#define MIMIC_UNROLL_STEPS _Pragma("GCC unroll 4")  // loops over steps: counting takes issue slots from multiply-adds

namespace mimic {
namespace MIMIC_ISA {

// Tile rows times kVectorsPerTile accumulators, two vectors of B and a broadcast fill the register file.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kTileRows = 12;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kTileRows = 12;
#else
constexpr int kVectorBytes = 16, kTileRows = 6;
#endif
constexpr int kVectorsPerTile = 2;

// Columns of a packed panel, and rows in one tile of h: the same for every instruction set and type.
constexpr int kPanel = 32;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T, int N = kLanes<T>>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * N)));
};
template <class T, int N = kLanes<T>>
using Vector = typename VectorOf<T, N>::type;

template <class V, class T>
MIMIC_INLINE V load(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <class V, class T>
MIMIC_INLINE void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof(V));
}

// A vector's bits as another type of vector.
template <class To, class From>
MIMIC_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "of the same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
MIMIC_INLINE void copy(ptrdiff_t n, const T* from, T* to) {
  __builtin_memmove(to, from, size_t(n) * sizeof(T));
}

// Prefetch a block that is about to be written to.
template <class T>
MIMIC_INLINE void prefetch_block(const T* block, ptrdiff_t row, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i, block += row) {
    for (int64_t j = 0; j < columns; j += 64 / int(sizeof(T))) __builtin_prefetch(block + j, 1);
    __builtin_prefetch(block + columns - 1, 1);
  }
}

// The lanes of a and b with numbers I: a's lanes come first, b's are numbered after them.
template <int... I, class V>
MIMIC_INLINE V shuffle(V a, V b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, I...);
#else
  return __builtin_shuffle(a, b, decltype(a < b){I...});
#endif
}

// The same shuffle within each sixteen bytes of the vectors.
template <int... I, class V, int... At>
MIMIC_INLINE V shuffle_sixteens(V a, V b, std::integer_sequence<int, At...>) {
  constexpr int lanes[] = {I...}, n = sizeof...(I), all = sizeof...(At);
  return shuffle<(At / n * n + lanes[At % n] % n + lanes[At % n] / n * all)...>(a, b);
}
template <int... I, class V>
MIMIC_INLINE V shuffle_sixteens(V a, V b) {
  return shuffle_sixteens<I...>(a, b, std::make_integer_sequence<int, int(sizeof(V) / 16 * sizeof...(I))>());
}

// Stores the sixteens of bytes of a vector, `stride` bytes apart.
template <class V>
MIMIC_INLINE void store_sixteens(const V& v, uint8_t* to, ptrdiff_t stride) {
  MIMIC_UNROLL for (int i = 0; i < int(sizeof(V)); i += 16) {
    __builtin_memcpy(to + i / 16 * stride, reinterpret_cast<const uint8_t*>(&v) + i, 16);
  }
}

// Sixteen bytes, each widened to a word. In asm, because compilers make at least six instructions of it.
MIMIC_INLINE Vector<int32_t, 16> widened(const uint8_t* bytes) {
  Vector<int32_t, 16> words;
#if defined(__AVX512F__)
  asm("vpmovzxbd %1, %0" : "=v"(words) : "m"(*reinterpret_cast<const uint8_t (*)[16]>(bytes)));
#else
  for (int i = 0; i < 16; ++i) words[i] = bytes[i];
#endif
  return words;
}

template <class T>
MIMIC_INLINE T least(T a, T b) {
  return a < b ? a : b;
}

MIMIC_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace MIMIC_ISA
}  // namespace mimic
