// What passes over slabs of hidden units have in common, whatever multiplies.
#pragma once

#include "cpu/arena.h"
#include "cpu/vector/elementwise.h"
#include "cpu/vector/microkernel.h"
#include "cpu/vector/pack.h"

namespace mimic {
namespace MIMIC_ISA {

struct Slab {
  int64_t begin, units;
};

MIMIC_INLINE Slab slab_at(const ShallowShape& s, int64_t begin) { return {begin, least(s.slab, s.H - begin)}; }

// For the record of the calling thread, which is the first of its team.
MIMIC_INLINE void count_slab(const Team& team, int64_t units = 1) {
  if (team.rank == 0 && units > 0) ++shallow_run().slabs;
}
MIMIC_INLINE void count_row_block(const Team& team) {
  if (team.rank == 0) ++shallow_run().row_blocks;
}

MIMIC_INLINE int64_t panels_of(const ShallowShape& s) { return ceil_div(s.B, int64_t(kPanel)); }

// How many threads a pass uses at most, where they share out so many tasks.
MIMIC_INLINE int most_members(const ShallowShape& s, int64_t tasks) {
  return int(least(int64_t(threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread)), tasks));
}

MIMIC_INLINE int rows_in_panel(const ShallowShape& s, int64_t panel) {
  return int(least(s.B - panel * kPanel, int64_t(kPanel)));
}

// Zeros in the rows of a panel's tile that no row of the batch stands behind: with infinite weights they would be NaN.
template <class T>
MIMIC_INLINE void clear_padding(const ShallowShape& s, int64_t panel, int64_t units, T* tile) {
  const int here = rows_in_panel(s, panel);
  for (int64_t u = 0; here < kPanel && u < units; ++u) {
    for (int i = here; i < kPanel; ++i) tile[u * kPanel + i] = 0;
  }
}

// This member's panels, [panel][column][32 rows], as rows of `columns` values.
template <class T>
MIMIC_INLINE void unpack(const Team& team, const ShallowShape& s, const T* packed, int64_t columns, T* to) {
  const int64_t panels = panels_of(s);
  for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
    transpose(packed + panel * kPanel * columns, kPanel, columns, rows_in_panel(s, panel),
              to + panel * kPanel * columns, columns);
  }
}

// Offset of a panel's values in the saved h, [slab][panel][unit][32].
MIMIC_INLINE int64_t saved_at(int64_t panels, const Slab& slab, int64_t panel) {
  return (slab.begin * panels + panel * slab.units) * kPanel;
}

// `n` values to what is kept, and from it, in the type that it has.
template <class T>
MIMIC_INLINE void write_h(const SavedH<T>& save, int64_t at, int64_t n, const T* values) {
  if (save.full) copy(n, values, save.full + at);
  if (save.bf16) to_bfloat16(n, values, save.bf16 + at);
}
template <class T>
MIMIC_INLINE void read_h(const SavedH<T>& saved, int64_t at, int64_t n, T* values) {
  if (saved.full) copy(n, saved.full + at, values);
  if (saved.bf16) from_bfloat16(n, saved.bf16 + at, values);
}

// Where gradients of a slab go, and what happens when they are complete. Without an optimizer: to dU, db and dW, which
// may be null. With one they live for one slab, and whoever owns a unit updates it at once.
template <class T>
class Gradients {
 public:
  Gradients(const ShallowShape& s, T* dU, T* db, T* dW) : s_(s), dU_(dU), db_(db), dW_(dW) {}
  Gradients(const ShallowShape& s, const Parameter<T>& U, const Parameter<T>& b, const Parameter<T>& W)
      : s_(s), U_(&U), b_(&b), W_(&W) {}

  void reserve(Arena& arena) {
    if (!U_) return;
    dU_ = arena.template take<T>(s_.slab * s_.k);
    db_ = arena.template take<T>(s_.slab);
    dW_ = arena.template take<T>(s_.slab * s_.C);
  }
  bool any() const { return U_ || dU_ || db_ || dW_; }
  // Where the slab's rows go, or null.
  T* dU(const Slab& slab) const { return of(slab, dU_, s_.k); }
  T* db(const Slab& slab) const { return of(slab, db_, 1); }
  T* dW(const Slab& slab) const { return of(slab, dW_, s_.C); }

  // These units' gradients are final, and nobody reads their weights any more.
  void complete(const Slab& slab, int64_t begin, int64_t end) const {
    if (!U_) return;
    const auto apply = [&](const T* grad, const Parameter<T>& parameter, int64_t row) {
      update_range((slab.begin + begin) * row, (slab.begin + end) * row, grad + begin * row, parameter);
    };
    apply(dU_, *U_, s_.k);
    apply(db_, *b_, 1);
    apply(dW_, *W_, s_.C);
  }

 private:
  T* of(const Slab& slab, T* rows, int64_t row) const { return rows && !U_ ? rows + slab.begin * row : rows; }

  const ShallowShape& s_;
  T *dU_ = nullptr, *db_ = nullptr, *dW_ = nullptr;
  const Parameter<T>*U_ = nullptr, *b_ = nullptr, *W_ = nullptr;  // to be updated
};

}  // namespace MIMIC_ISA
}  // namespace mimic
