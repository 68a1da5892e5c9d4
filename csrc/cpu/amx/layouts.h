// Matrices as tiles of bfloat16 take them. A number is rounded to one bfloat16, or taken as the sum of three that hold
// all of its 24 bits (bf16x3): the number rounded, what is left rounded, and what is left of that.
//
// A line of a tile is 32 values of a row of the source ("along"), or 16 pairs of values of two of its rows ("across").
// Which two values share a word is free, but has to be the same on both sides of a product. A tile that is transposed,
// word by word, serves as the other side of a product; it is called turned. So there are four forms of a matrix M:
//   along   A of C = M X          turned   B of C = X M^T      the sum runs along rows of M
//   across  B of C = X M          turned   A of C = M^T X      the sum runs down columns of M
#pragma once

#include "cpu/amx/tiles.h"
#include "cpu/arena.h"
#include "cpu/vector/round.h"

namespace mimic {
namespace MIMIC_ISA {

// How numbers become tiles.
template <class T, int kTermsOfANumber>
struct TileFormat {
  using Tiles = T;
  using Product = Terms<kTermsOfANumber, kTermsOfANumber>;
  static constexpr int kTerms = kTermsOfANumber;

  // How far apart in a row the two values of a word are. With three terms 16 apart is less work than neighbours.
  static constexpr int kApart = kTerms == 3 ? kTile : 1;
};

// The gaps make all sixteens and terms begin in different sets of the caches, whatever the number of steps, because all
// of them are written to in turn.
template <class F>
TileMatrix take_tiles(Arena& arena, int64_t outers, int64_t steps) {
  const ptrdiff_t outer = steps * kTileWords + 5 * kTile, plane = outers * outer + 7 * kTile;
  return {arena.take<uint32_t>(F::kTerms * plane), outer, plane};
}

using Floats16 = Vector<float, kTile>;

// Words of two upper halves; that of `low` becomes the lower one.
MIMIC_INLINE Bf16Words words_of(Bf16Words low, Bf16Words high) { return low >> 16 | (high & 0xFFFF0000u); }

// Sixteen numbers on their way into tiles.
template <class F, int kTerms = F::kTerms>
struct Cut;

template <class F>
struct Cut<F, 1> {
  Floats16 x;

  explicit Cut(Floats16 values) : x(values) {}
  // The values that tiles will hold of x.
  static Floats16 in_tiles(Floats16 x) { return same_bits<Floats16>(rounded(x)); }
  static void store_along(const Cut& low, const Cut& high, uint32_t* to, ptrdiff_t) {
    store(to, rounded_both<typename F::Tiles::Element>(low.x, high.x));
  }
  static void store_across(const Cut& above, const Cut& below, uint32_t* to, ptrdiff_t) {
    store(to, interleaved(rounded_both<typename F::Tiles::Element>(above.x, below.x)));
  }
};

// Three terms, each in the upper half of a word. The first two are rounded to nearest, ties away from zero. The last is
// exactly what is left: eight bits, or NaN.
template <class F>
struct Cut<F, 3> {
  Bf16Words term[3];

  explicit Cut(Floats16 x) {
    for (int t = 0; t < 2; ++t) {
      term[t] = (same_bits<Bf16Words>(x) + 0x8000u) & 0xFFFF0000u;
      x -= same_bits<Floats16>(term[t]);
    }
    term[2] = same_bits<Bf16Words>(x);
  }
  static Floats16 in_tiles(Floats16 x) { return x; }
  static void store_along(const Cut& low, const Cut& high, uint32_t* to, ptrdiff_t plane) {
    for (int t = 0; t < 3; ++t) store(to + t * plane, words_of(low.term[t], high.term[t]));
  }
  static void store_across(const Cut& above, const Cut& below, uint32_t* to, ptrdiff_t plane) {
    store_along(above, below, to, plane);
  }
};

// Writes one line of a tile.
template <class F, class S>
MIMIC_INLINE void line_along(const S* row, uint32_t* to, ptrdiff_t plane) {
  if constexpr (F::kTerms == 1) {
    store(to, rounded_both<typename F::Tiles::Element>(row, row + kTile));
  } else {
    static_assert(sizeof(S) == sizeof(float));
    Cut<F>::store_along(Cut<F>(load<Floats16>(row)), Cut<F>(load<Floats16>(row + kTile)), to, plane);
  }
}
template <class F, class S>
MIMIC_INLINE void line_across(const S* above, const S* below, uint32_t* to, ptrdiff_t plane) {
  if constexpr (F::kTerms == 1) {
    store(to, interleaved(rounded_both<typename F::Tiles::Element>(above, below)));
  } else {
    static_assert(sizeof(S) == sizeof(float));
    Cut<F>::store_across(Cut<F>(load<Floats16>(above)), Cut<F>(load<Floats16>(below)), to, plane);
  }
}

// The row itself, or where it has less than kWidth values a copy in `room`, with zeros behind them.
template <int kWidth, class S>
MIMIC_INLINE const S* padded_row(const S* row, int64_t width, S* room) {
  if (width >= kWidth) return row;
  for (int64_t j = 0; j < kWidth; ++j) room[j] = j < width ? row[j] : S(0);
  return room;
}

// Takes the lines of a tile to their place. Those of a turned tile go to a buffer first, and `finish` transposes them.
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

// The same rows as one step of tiles [column / 16], in pairs of rows that are `apart`: 1 or 16.
template <class F, class S>
void put_across(const S* values, ptrdiff_t stride, int64_t rows, int64_t columns, int apart, bool turned,
                const TileMatrix& to) {
  for (int64_t j = 0; j < columns; j += kTile) {
    TileWriter<F> writer(turned, to.tile(j / kTile, 0), to.plane);
    for (int line = 0; line < kTile; ++line) {
      const S* row[2];
      S room[2][kTile];
      for (int half = 0; half < 2; ++half) {
        const int64_t i = apart == 1 ? 2 * line + half : line + half * apart;
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

// Rows [row, row + 32) of a source that has `rows` of them, of `width` columns or fewer from `column` on.
template <class F>
void put_source_along(const Source& M, int64_t rows, int64_t columns, int64_t row, int64_t column, int64_t width,
                      bool turned, const TileMatrix& to) {
  with_numbers<F>(M, [&](const auto* values) {
    put_along<F>(values + row * columns + column, columns, rows - row, least(columns - column, width), turned, to);
  });
}
// All columns of these rows.
template <class F>
void put_source_along(const Source& M, int64_t rows, int64_t columns, int64_t row, bool turned, const TileMatrix& to) {
  put_source_along<F>(M, rows, columns, row, 0, columns, turned, to);
}
template <class F>
void put_source_across(const Source& M, int64_t rows, int64_t columns, int64_t row, int apart, bool turned,
                       const TileMatrix& to) {
  with_numbers<F>(M, [&](const auto* values) {
    put_across<F>(values + row * columns, columns, rows - row, columns, apart, turned, to);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
