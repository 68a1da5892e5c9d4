// What the microkernel's products are made of: the arrays' own numbers, or these rounded to pairs of bfloat16. Both say
//   pack_rows    z or dy, one panel: [element of columns][32 rows]
//   pack_steps   the same panel for products that sum over rows: [32 columns][element of rows][column]
//   weights      a slab of U and W, for products that sum along their rows and for those that sum down their columns
//   room, keep   where a panel of h or da is made, and what becomes of it
#pragma once

#include "cpu/slab.h"
#include "cpu/vector/pack.h"
#include "cpu/vector/round.h"

namespace mimic {
namespace MIMIC_ISA {

template <class Pointer>
struct SlabWeights {
  Pointer U_along, U_down, W_along, W_down;
};

template <class T>
class OwnNumbers {
 public:
  using Value = T;
  using Element = T;
  using Matrix = const T*;
  static constexpr Multiplier kMultiplier = Multiplier::vectors;

  OwnNumbers(const ShallowShape& s, int, bool) : s_(s) {}
  void reserve(Arena&) {}

  void pack_rows(const Team&, const T* from, int64_t columns, int64_t panel, T* to) const {
    pack_transposed(from + panel * kPanel * columns, columns, rows_in_panel(s_, panel), columns, to);
  }
  void pack_steps(const T* from, int64_t columns, int64_t panel, ptrdiff_t stride, T* to) const {
    const int here = rows_in_panel(s_, panel);
    for (int64_t j = 0; j < columns; j += kPanel, to += stride) {
      pack_columns(from + panel * kPanel * columns + j, columns, here, int(least(columns - j, int64_t(kPanel))), to);
      __builtin_memset(to + here * kPanel, 0, size_t(kPanel - here) * kPanel * sizeof(T));
    }
  }
  SlabWeights<const T*> weights(Team&, const Slab& slab, const T* U, const T* W) {
    U += slab.begin * s_.k, W += slab.begin * s_.C;
    return {U, U, W, W};
  }
  T* room(const Team&, int, T* tile) const { return tile; }
  const T* keep(const Team&, int64_t, const T* values, T*, bool) const { return values; }

  void sum_rows_of(const T*, const T* dy_packed, T* dc) const {
    sum_panels(dy_packed, s_.C, panels_of(s_), s_.C * kPanel, false, dc);
  }
  static void sum_tiles(const T* tiles, int64_t units, int64_t count, ptrdiff_t stride, bool add, T* sums) {
    sum_panels(tiles, units, count, stride, add, sums);
  }

 private:
  const ShallowShape& s_;
};

// Weights, z, dy, h and da are rounded, sums are float32, masters stay as they are. Each slab of weights is rounded
// once, by all threads together, when its turn comes. E is the type of a pair.
template <class E>
class RoundedPairs {
 public:
  using Value = float;
  using Element = E;
  using Matrix = Source;
  static constexpr Multiplier kMultiplier = Multiplier::pairs;

  RoundedPairs(const ShallowShape& s, int members, bool backward) : s_(s), members_(members), backward_(backward) {}
  void reserve(Arena& arena) {
    const int64_t panel = s_.slab * kPanel;
    for (SlabWeights<E*>& w : slabs_) {
      w = {arena.take<E>(s_.slab * pairs_of(s_.k)), arena.take<E>(s_.slab / 2 * s_.k),
           arena.take<E>(s_.slab * pairs_of(s_.C)), arena.take<E>(s_.slab / 2 * s_.C)};
    }
    rows_ = arena.take<uint32_t>(members_ * row_words());
    down_ = arena.take<E>(members_ * panel / 2);
    for (float*& room : rooms_) room = arena.take<float>(backward_ ? members_ * panel : 0);
  }

  void pack_rows(const Team& team, const Source& from, int64_t columns, int64_t panel, E* to) const {
    round_panel<E>(from, s_.B, columns, panel * kPanel, rows_ + team.rank * row_words(), words(to));
  }
  void pack_steps(const Source& from, int64_t columns, int64_t panel, ptrdiff_t stride, E* to) const {
    round_steps<E>(from, s_.B, columns, panel * kPanel, stride, words(to));
  }
  // There are two of each slab, so that one barrier a slab is enough.
  SlabWeights<E*> weights(Team& team, const Slab& slab, const Source& U, const Source& W) const {
    const SlabWeights<E*>& to = slabs_[slab.begin / s_.slab % 2];
    const int64_t pairs = pairs_of(slab.units), at = 2 * team.begin(pairs);
    const int64_t begin = slab.begin + at, end = slab.begin + least(2 * team.end(pairs), slab.units);
    round_rows<E>(U, s_.H, s_.k, begin, end, words(to.U_along) + at * pairs_of(s_.k),
                  backward_ ? words(to.U_down) + at / 2 * s_.k : nullptr);
    round_rows<E>(W, s_.H, s_.C, begin, end, backward_ ? words(to.W_along) + at * pairs_of(s_.C) : nullptr,
                  backward_ ? nullptr : words(to.W_down) + at / 2 * s_.C);
    team.barrier();
    return to;
  }
  float* room(const Team& team, int which, E*) const { return rooms_[which] + team.rank * s_.slab * kPanel; }

  // As [unit][16 pairs of rows], if `along` is given, and if `down` is asked for as [pair of units][32 rows].
  const E* keep(const Team& team, int64_t units, const float* values, E* along, bool down) const {
    E* const pairs_of_units = down_ + team.rank * s_.slab / 2 * kPanel;
    round_tile<E>(units, values, words(along), down ? words(pairs_of_units) : nullptr);
    return pairs_of_units;
  }

  void sum_rows_of(const Source& dy, const E*, float* dc) const { sum_rows(dy, s_.B, s_.C, dc); }
  static void sum_tiles(const E* tiles, int64_t units, int64_t count, ptrdiff_t stride, bool add, float* sums) {
    sum_pairs(words(tiles), units, count, stride, add, sums);
  }

 private:
  int64_t row_words() const { return pairs_of(s_.k > s_.C ? s_.k : s_.C) * kPanel; }  // of a member, z or dy
  static uint32_t* words(E* pairs) { return reinterpret_cast<uint32_t*>(pairs); }
  static const uint32_t* words(const E* pairs) { return reinterpret_cast<const uint32_t*>(pairs); }

  const ShallowShape& s_;
  int members_;
  bool backward_;
  SlabWeights<E*> slabs_[2];
  uint32_t* rows_;   // a member's panel on its way to being packed
  E* down_;          // a member's tile
  float* rooms_[2];  // a member's panels of h and da, backward
};

}  // namespace MIMIC_ISA
}  // namespace mimic
