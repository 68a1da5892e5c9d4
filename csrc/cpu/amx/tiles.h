// Tiles: 16 lines of 64 bytes. One instruction of Intel AMX multiplies two of them, of pairs of bfloat16, and adds to a
// third, of float32: C[m][n] += sum over p of A[m][p] B[p][n], each product being one of pairs.
//
// In memory a tile is 1 KiB without gaps, and a matrix is tiles [outer][step]: `outer` counts sixteens of C's rows or
// columns, `step` runs through the sum, 32 values at a time.
#pragma once

#include "cpu/vector/pairs.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kTile = 16;                  // lines of a tile, and words or floats of a line
constexpr int kTileWords = kTile * kTile;  // of a tile
constexpr int kStep = 2 * kTile;           // bfloat16 values of a line
constexpr int kTileRegisters = 8;

MIMIC_INLINE int64_t tiles_of(int64_t n) { return ceil_div(n, int64_t(kTile)); }
MIMIC_INLINE int64_t steps_of(int64_t n) { return ceil_div(n, int64_t(kStep)); }

// The registers, modelled: the same products on any machine, for tests and where there is nothing better.
class ModelledTiles {
 public:
  using Element = Pair;
  static void configure() {}
  static void release() {}
  static void stay_awake() {}

  template <int R>
  MIMIC_NOINLINE void zero() {
    __builtin_memset(registers_[R], 0, sizeof(registers_[R]));
  }
  template <int R, class T>
  MIMIC_NOINLINE void load(const T* from, ptrdiff_t line) {
    for (int i = 0; i < kTile; ++i) __builtin_memcpy(registers_[R] + i * kTile, from + i * line, 64);
  }
  template <int R>
  MIMIC_NOINLINE void store(float* to, ptrdiff_t line) const {
    for (int i = 0; i < kTile; ++i) __builtin_memcpy(to + i * line, registers_[R] + i * kTile, 64);
  }
  template <int C, int A, int B>
  MIMIC_NOINLINE void multiply_add() {
    using Line = Vector<uint32_t, kTile>;
    using Sum = Vector<float, kTile>;
    for (int m = 0; m < kTile; ++m) {
      Sum sum = same_bits<Sum>(line(C, m));
      for (int p = 0; p < kTile; ++p) {
        const Line a = Line{} + registers_[A][m * kTile + p], b = line(B, p);
        sum += same_bits<Sum>(a << 16) * same_bits<Sum>(b << 16) +
               same_bits<Sum>(a & 0xFFFF0000u) * same_bits<Sum>(b & 0xFFFF0000u);
      }
      __builtin_memcpy(registers_[C] + m * kTile, &sum, sizeof(sum));
    }
  }

 private:
  Vector<uint32_t, kTile> line(int r, int i) const {
    return mimic::MIMIC_ISA::load<Vector<uint32_t, kTile>>(registers_[r] + i * kTile);
  }

  alignas(64) uint32_t registers_[kTileRegisters][kTileWords];
};

#if defined(MIMIC_X86) && defined(__AVX512F__)
// The real ones. Only this code uses them, as the build has no -mamx-tile: so the asm statements name no clobbered
// registers.
class AmxTiles {
 public:
  using Element = NativePair;
  // A thread sets the shape of the registers once, and releases them when it is done.
  static void configure() {
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { asm volatile("tilerelease"); }
  // One multiply-add of vectors. After some 0.6 us without any, storing a tile took 0.3 us (docs/scaling.md).
  MIMIC_INLINE static void stay_awake() {
    Vector<float, kTile> any = {};
    asm volatile("vfmadd231ps %0, %0, %0" : "+v"(any));
  }

  template <int R>
  MIMIC_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(R));
  }
  template <int R, class T>
  MIMIC_INLINE void load(const T* from, ptrdiff_t line) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(R), "r"(from), "r"(line * ptrdiff_t(sizeof(T))) : "memory");
  }
  template <int R>
  MIMIC_INLINE void store(float* to, ptrdiff_t line) const {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(R), "r"(to), "r"(line * ptrdiff_t(sizeof(float))) : "memory");
  }
  template <int C, int A, int B>
  MIMIC_INLINE void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};
using Tiles = AmxTiles;
#else
using Tiles = ModelledTiles;
#endif

// Tiles as they are in a matrix: `outer` from one sixteen to the next, `plane` from one term of a number to the next
// (see amx/layouts.h).
struct TileMatrix {
  uint32_t* tiles;
  ptrdiff_t outer, plane;

  uint32_t* tile(int64_t at, int64_t step, int term = 0) const {
    return tiles + at * outer + step * kTileWords + term * plane;
  }
  TileMatrix from(int64_t at, int64_t step) const { return {tile(at, step), outer, plane}; }
};

// Up to 2 x 2 tiles of C in registers, with what they are made of.
template <class Tiles, int M, int N>
class TileBlock {
 public:
  MIMIC_INLINE void zero() {
    t_.template zero<0>();
    if constexpr (N == 2) t_.template zero<1>();
    if constexpr (M == 2) t_.template zero<2>();
    if constexpr (M == 2 && N == 2) t_.template zero<3>();
  }
  MIMIC_INLINE void load(const float* c, ptrdiff_t row) {
    t_.template load<0>(c, row);
    if constexpr (N == 2) t_.template load<1>(c + kTile, row);
    if constexpr (M == 2) t_.template load<2>(c + kTile * row, row);
    if constexpr (M == 2 && N == 2) t_.template load<3>(c + kTile * row + kTile, row);
  }
  MIMIC_INLINE void store(float* c, ptrdiff_t row) const {
    t_.template store<0>(c, row);
    if constexpr (N == 2) t_.template store<1>(c + kTile, row);
    if constexpr (M == 2) t_.template store<2>(c + kTile * row, row);
    if constexpr (M == 2 && N == 2) t_.template store<3>(c + kTile * row + kTile, row);
  }
  MIMIC_INLINE void load_A(const TileMatrix& A, int64_t step, int term) {
    t_.template load<4>(A.tile(0, step, term), kTile);
    if constexpr (M == 2) t_.template load<5>(A.tile(1, step, term), kTile);
  }
  MIMIC_INLINE void load_B(const TileMatrix& B, int64_t step, int term) {
    t_.template load<6>(B.tile(0, step, term), kTile);
    if constexpr (N == 2) t_.template load<7>(B.tile(1, step, term), kTile);
  }
  MIMIC_INLINE void multiply_add() {
    t_.template multiply_add<0, 4, 6>();
    if constexpr (N == 2) t_.template multiply_add<1, 4, 7>();
    if constexpr (M == 2) t_.template multiply_add<2, 5, 6>();
    if constexpr (M == 2 && N == 2) t_.template multiply_add<3, 5, 7>();
  }

 private:
  Tiles t_;
};

struct Nothing {
  void operator()() const {}
};

// Of how many bfloat16 the numbers of A and B are sums.
template <int kOfA, int kOfB>
struct Terms {
  static_assert((kOfA == 1 || kOfA == 3) && (kOfB == kOfA || kOfB == 3));
  static constexpr int kA = kOfA, kB = kOfB;
  static constexpr int kGroups = kA * kB == 9 ? 6 : kB;  // of a step's products, each of which shares what it loads
};

// C (16 M, 16 N) (+)= A B over `steps` steps. Of the nine products of three terms, the six largest are made, in an
// order that loads each operand as seldom as possible. A processor multiplies tiles in a unit of its own, and only some
// eight such instructions can wait for it: `meanwhile()`, which is called once a group, gives the other units work.
template <class Tiles, class Terms, int M, int N, class Meanwhile = Nothing>
void tile_product(const TileMatrix& A, const TileMatrix& B, int64_t steps, float* c, ptrdiff_t c_row, bool add,
                  const Meanwhile& meanwhile = {}) {
  TileBlock<Tiles, M, N> block;
  add ? block.load(c, c_row) : block.zero();
  for (int64_t s = 0; s < steps; ++s) {
    block.load_A(A, s, 0);
    for (int t = Terms::kB - 1; t > 0; --t) block.load_B(B, s, t), block.multiply_add(), meanwhile();
    if constexpr (Terms::kA == 3) {
      block.load_A(A, s, 1), block.multiply_add(), meanwhile();
      block.load_B(B, s, 0), block.multiply_add(), meanwhile();
      block.load_A(A, s, 2), block.multiply_add(), meanwhile();
      block.load_A(A, s, 0), block.multiply_add(), meanwhile();
    } else {
      block.load_B(B, s, 0), block.multiply_add(), meanwhile();
    }
    Tiles::stay_awake();
  }
  block.store(c, c_row);
}

// C (`rows`, `columns`) (+)= A B. `padded` says that C has room for whole tiles. Without it, tiles that reach beyond C
// go through a block of our own, and C, likely a caller's array and in no cache, is prefetched.
template <class Tiles, class Terms>
void tile_products(const TileMatrix& A, const TileMatrix& B, int64_t steps, int64_t rows, int64_t columns, float* c,
                   ptrdiff_t c_row, bool add, bool padded) {
  using Product = void (*)(const TileMatrix&, const TileMatrix&, int64_t, float*, ptrdiff_t, bool, const Nothing&);
  static constexpr Product products[2][2] = {{tile_product<Tiles, Terms, 1, 1>, tile_product<Tiles, Terms, 1, 2>},
                                             {tile_product<Tiles, Terms, 2, 1>, tile_product<Tiles, Terms, 2, 2>}};
  for (int64_t j = 0; j < columns; j += 2 * kTile) {
    for (int64_t i = 0; i < rows; i += 2 * kTile) {
      const int64_t height = least(rows - i, int64_t(2 * kTile)), width = least(columns - j, int64_t(2 * kTile));
      const Product multiply = products[height > kTile][width > kTile];
      const TileMatrix a = A.from(i / kTile, 0), b = B.from(j / kTile, 0);
      float* const to = c + i * c_row + j;
      if (!padded) prefetch_block(to, c_row, height, width);
      if (padded || (height % kTile == 0 && width % kTile == 0)) {
        multiply(a, b, steps, to, c_row, add, {});
        continue;
      }
      alignas(64) float whole[4 * kTileWords];
      multiply(a, b, steps, whole, 2 * kTile, false, {});
      for (int64_t m = 0; m < height; ++m) {
        for (int64_t n = 0; n < width; ++n) {
          to[m * c_row + n] = (add ? to[m * c_row + n] : 0) + whole[m * 2 * kTile + n];
        }
      }
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
