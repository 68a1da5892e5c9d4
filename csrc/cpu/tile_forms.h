// Matrices as tiles of bfloat16 take them. A number is rounded to one bfloat16, or taken as the sum of three that hold
// all of its 24 bits (bf16x3): what it is rounded to, what the rest is rounded to, and what is left then.
//
// A line of a tile is 32 values of a row of the source ("along"), or 16 pairs of two rows, one above the other
// ("across"). Turned, word for word, a tile serves the other side of a product. So there are four forms of a matrix M:
//   along   A of C = M X          turned   B of C = X M^T      the sum runs along rows of M
//   across  B of C = X M          turned   A of C = M^T X      the sum runs down columns of M
#pragma once

#include "arena.h"
#include "round.h"
#include "tiles.h"

namespace mimic {
namespace MIMIC_ISA {

// How numbers become tiles.
template <class T, int kTermsOfANumber>
struct TileFormat {
  using Tiles = T;
  static constexpr int kTerms = kTermsOfANumber;
};

template <class F>
TileMatrix take_tiles(Arena& arena, int64_t outers, int64_t steps) {
  return {arena.take<uint32_t>(F::kTerms * outers * steps * kTileWords), steps * kTileWords,
          outers * steps * kTileWords};
}

using Floats16 = Vector<float, kTile>;
using Halves32 = Vector<uint16_t, kStep>;

// 32 values as a line of each term: those of `first` in order, then those of `second`.
template <class F, class S>
MIMIC_INLINE void terms_of(const S* first, const S* second, Halves32* terms) {
  if constexpr (F::kTerms == 1) {
    terms[0] = rounded_both<typename F::Tiles::Element>(first, second);
  } else {
    static_assert(sizeof(S) == sizeof(float) && F::kTerms == 3);
    alignas(64) float left[kStep];
    copy(kTile, first, left), copy(kTile, second, left + kTile);
    for (int t = 0; t < F::kTerms; ++t) {
      terms[t] = rounded_both<typename F::Tiles::Element>(left, left + kTile);
      for (int half = 0; half < 2; ++half) {
        Vector<uint16_t, kTile> taken;
        __builtin_memcpy(&taken, reinterpret_cast<const char*>(&terms[t]) + half * sizeof(taken), sizeof(taken));
        const auto values = same_bits<Floats16>(__builtin_convertvector(taken, Rounded) << 16);
        store(left + half * kTile, load<Floats16>(left + half * kTile) - values);
      }
    }
  }
}

template <class F, class S>
MIMIC_INLINE void line_along(const S* row, uint32_t* to, ptrdiff_t plane) {
  Halves32 terms[F::kTerms];
  terms_of<F>(row, row + kTile, terms);
  for (int t = 0; t < F::kTerms; ++t) store(to + t * plane, terms[t]);
}

template <class F, class S>
MIMIC_INLINE void line_across(const S* above, const S* below, uint32_t* to, ptrdiff_t plane) {
  Halves32 terms[F::kTerms];
  terms_of<F>(above, below, terms);
  for (int t = 0; t < F::kTerms; ++t) {
    store(to + t * plane, shuffle<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27,
                                  12, 28, 13, 29, 14, 30, 15, 31>(terms[t], terms[t]));
  }
}

// A row of `width` values, with zeros behind it where that is less than a line takes.
template <int kWidth, class S>
MIMIC_INLINE const S* padded_row(const S* row, int64_t width, S* room) {
  if (width >= kWidth) return row;
  for (int64_t j = 0; j < kWidth; ++j) room[j] = j < width ? row[j] : S(0);
  return room;
}

// Where the lines of a tile go: to their place, or to one beside it, from which they are turned into their place.
template <class F>
class TileWriter {
 public:
  TileWriter(bool turned, uint32_t* place, ptrdiff_t plane) : turned_(turned), place_(place), plane_(plane) {}
  uint32_t* line(int i) { return (turned_ ? aside_ : place_) + i * kTile; }
  ptrdiff_t plane() const { return turned_ ? kTileWords : plane_; }
  void finish() const {
    for (int t = 0; turned_ && t < F::kTerms; ++t) {
      transpose(aside_ + t * kTileWords, ptrdiff_t(kTile), ptrdiff_t(kTile), ptrdiff_t(kTile), place_ + t * plane_,
                ptrdiff_t(kTile));
    }
  }

 private:
  bool turned_;
  uint32_t* place_;
  ptrdiff_t plane_;
  alignas(64) uint32_t aside_[F::kTerms * kTileWords];
};

// A block of 32 rows of 32 values, [row][32], as tiles, from row `begin` on: the two of a step, sixteen rows each ...
template <class F>
MIMIC_INLINE void block_along(const float* block, int begin, int end, const TileMatrix& to) {
  for (int i = begin; i < end; ++i) {
    line_along<F>(block + i * kStep, to.tile(i / kTile, 0) + i % kTile * kTile, to.plane);
  }
}
// ... or, `begin` being even, the two that share the step, sixteen columns each.
template <class F>
MIMIC_INLINE void block_across(const float* block, int begin, int end, const TileMatrix& to) {
  for (int i = begin; i < end; i += 2) {
    for (int half = 0; half < 2; ++half) {
      const float* const row = block + i * kStep + half * kTile;
      line_across<F>(row, row + kStep, to.tile(half, 0) + i / 2 * kTile, to.plane);
    }
  }
}

// Up to 32 rows of `columns` values, `stride` apart, into tiles [row / 16][column / 32]; rows beyond `rows` are zeros.
template <class F, class S>
void put_along(const S* values, ptrdiff_t stride, int64_t rows, int64_t columns, bool turned, const TileMatrix& to) {
  for (int64_t j = 0; j < columns; j += kStep) {
    for (int outer = 0; outer < kStep / kTile; ++outer) {
      TileWriter<F> writer(turned, to.tile(outer, j / kStep), to.plane);
      for (int line = 0; line < kTile; ++line) {
        const int64_t i = outer * kTile + line;
        S room[kStep];
        line_along<F>(padded_row<kStep>(values + i * stride + j, i < rows ? columns - j : 0, room), writer.line(line),
                      writer.plane());
      }
      writer.finish();
    }
  }
}

// The same rows as one step of tiles [column / 16].
template <class F, class S>
void put_across(const S* values, ptrdiff_t stride, int64_t rows, int64_t columns, bool turned, const TileMatrix& to) {
  for (int64_t j = 0; j < columns; j += kTile) {
    TileWriter<F> writer(turned, to.tile(j / kTile, 0), to.plane);
    for (int line = 0; line < kTile; ++line) {
      const S* row[2];
      S room[2][kTile];
      for (int half = 0; half < 2; ++half) {
        const int64_t i = 2 * line + half;
        row[half] = padded_row<kTile>(values + i * stride + j, i < rows ? columns - j : 0, room[half]);
      }
      line_across<F>(row[0], row[1], writer.line(line), writer.plane());
    }
    writer.finish();
  }
}

// f(pointer to the source's values); three terms are of float32 alone.
template <class F, class Use>
MIMIC_INLINE void with_numbers(const Source& source, Use use) {
  if constexpr (F::kTerms == 1) {
    with_source(source, use);
  } else {
    use(static_cast<const float*>(source.values));
  }
}

// Rows [row, row + 32) of a source that has `rows` of them.
template <class F>
void put_source_along(const Source& M, int64_t rows, int64_t columns, int64_t row, bool turned, const TileMatrix& to) {
  with_numbers<F>(
      M, [&](const auto* values) { put_along<F>(values + row * columns, columns, rows - row, columns, turned, to); });
}
template <class F>
void put_source_across(const Source& M, int64_t rows, int64_t columns, int64_t row, bool turned, const TileMatrix& to) {
  with_numbers<F>(
      M, [&](const auto* values) { put_across<F>(values + row * columns, columns, rows - row, columns, turned, to); });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
