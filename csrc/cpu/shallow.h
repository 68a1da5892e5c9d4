// z -> h = dropout(f(z U^T + b)) -> y = h W + c, and back, with h in cache only.
//
// Rows run along vector lanes, in panels of 32, so U, b, W and their gradients are read and written in place, a
// slab of hidden units at a time. Forward: a thread owns panels of rows and streams the slabs. Backward, in each
// slab and block of rows: threads own panels (h, da, dz); then, past a barrier, units (dU, db, dW, and
// the optimizer step). Tiles are double-buffered, so one barrier a block is enough. Sums over H
// go slab by slab and sums over B block by block, whatever the number of threads.
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

// What one member needs to make a panel of h.
template <class T>
struct PanelMaker {
  const ShallowShape& s;
  const T *U, *b;
  uint8_t* bytes;  // slab x 32, if there is dropout

  // a = z U^T + b (or, for relu, its positive part) of one panel, from its transposed z.
  void pre_activation(const Slab& slab, const T* z_panel, T* a) const {
    Product<T> p = {U + slab.begin * s.k, s.k, 1, 0, 1, s.k, z_panel, a, kPanel};
    p.finish = s.activation == Activation::relu ? Finish::relu : Finish::bias;
    p.aux = b + slab.begin;
    multiply<0, 1>(slab.units, kPanel, p);
  }

  // h, and for all but relu the factor of da, from what `pre_activation` made.
  void activation(const Slab& slab, int64_t panel, const T* a, T* h, T* slope) const {
    const ptrdiff_t n = slab.units * kPanel;
    if (s.activation != Activation::relu) activate(s.activation, n, a, h, slope);
    if (!s.mask.drops()) return;
    mask_panel(s.mask, panel * kPanel, slab.begin, slab.units, bytes);
    apply_mask(n, bytes, s.mask, h, h);
    if (s.activation != Activation::relu && slope) apply_mask(n, bytes, s.mask, slope, slope);
  }
};

template <class T>
MIMIC_INLINE int rows_in_panel(const ShallowShape& s, int64_t panel) {
  return int(least(s.B - panel * kPanel, int64_t(kPanel)));
}

// Zeros in the rows of a panel's tile that no row of the batch stands behind: with infinite weights they would be NaN.
template <class T>
MIMIC_INLINE void clear_padding(const ShallowShape& s, int64_t panel, int64_t units, T* tile) {
  const int here = rows_in_panel<T>(s, panel);
  for (int64_t u = 0; here < kPanel && u < units; ++u) {
    for (int i = here; i < kPanel; ++i) tile[u * kPanel + i] = 0;
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

template <class T>
void shallow_forward(const ShallowForward<T>& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel));
  const int64_t padded_slab = ceil_div(s.slab, int64_t(kMaskUnits)) * kMaskUnits;
  const bool relu = s.activation == Activation::relu;
  const auto layout = [&](Arena arena, T*& z_panels, T*& y_panels, T*& h, uint8_t*& bytes, int members) {
    z_panels = arena.take<T>(panels * kPanel * s.k);
    y_panels = arena.take<T>(panels * kPanel * s.C);
    h = arena.take<T>(members * padded_slab * kPanel);
    bytes = arena.take<uint8_t>(s.mask.drops() ? members * padded_slab * kPanel : 0);
    return arena.used();
  };
  T *z_panels, *y_panels, *h_tiles;
  uint8_t* all_bytes;
  const int most_members = int(least(int64_t(threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread)), panels));
  void* const memory = scratch(layout(Arena(), z_panels, y_panels, h_tiles, all_bytes, most_members));
  layout(Arena(memory), z_panels, y_panels, h_tiles, all_bytes, most_members);

  parallel(most_members, [&](Team& team) {
    T* const h_tile = h_tiles + team.rank * padded_slab * kPanel;
    const PanelMaker<T> make = {s, f.U, f.b, all_bytes + team.rank * padded_slab * kPanel};
    const int64_t first = team.begin(panels), last = team.end(panels);
    for (int64_t panel = first; panel < last; ++panel) {
      pack_transposed(f.z + panel * kPanel * s.k, s.k, rows_in_panel<T>(s, panel), s.k,
                      z_panels + panel * kPanel * s.k);
      T* const y_panel = y_panels + panel * kPanel * s.C;
      for (int64_t i = 0; i < s.C * kPanel; ++i) y_panel[i] = f.c[i / kPanel];
    }
    for (int64_t u = 0; u < s.H; u += s.slab) {
      const Slab slab = slab_at(s, u);
      count_slab(team);
      for (int64_t panel = first; panel < last; ++panel) {
        const int64_t at = saved_at(panels, slab, panel), n = slab.units * kPanel;
        T* const a = f.save.full ? f.save.full + at : h_tile;
        T* const h = relu ? a : h_tile;
        make.pre_activation(slab, z_panels + panel * kPanel * s.k, a);
        if (f.save.any()) clear_padding(s, panel, slab.units, a);
        if (f.save.bf16 && !relu) to_bfloat16(n, a, f.save.bf16 + at);
        make.activation(slab, panel, a, h, nullptr);
        if (f.save.bf16 && relu) to_bfloat16(n, h, f.save.bf16 + at);
        Product<T> y = {f.W + u * s.C, 1,          s.C, 0, 1, slab.units, h, y_panels + panel * kPanel * s.C,
                        kPanel,        Finish::add};
        multiply<1, 0>(s.C, kPanel, y);
      }
    }
    for (int64_t panel = first; panel < last; ++panel) {
      transpose(y_panels + panel * kPanel * s.C, kPanel, s.C, rows_in_panel<T>(s, panel), f.y + panel * kPanel * s.C,
                s.C);
    }
  });
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

// The backward pass; `out` takes the weights' gradients.
template <class T>
void shallow_backward_into(const ShallowShape& s, const T* dy, const T* z, const T* U, const T* b, const T* W,
                           const SavedH<T>& saved, T* dz, T* dc, Gradients<T> out) {
  const bool weights = out.any(), relu = s.activation == Activation::relu;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), rows = panels * kPanel;
  const int64_t k_panels = ceil_div(s.k, int64_t(kPanel)), c_panels = ceil_div(s.C, int64_t(kPanel));
  const int64_t padded_slab = ceil_div(s.slab, int64_t(kMaskUnits)) * kMaskUnits;
  const int64_t block_panels = s.row_block / kPanel, tile = s.row_block * s.slab;
  const int threads = threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread);
  const int most_members = int(least(int64_t(threads), least(panels, block_panels)));
  struct {
    T *zt, *dyt, *z, *dy, *dz, *h[2], *da[2];
    uint8_t* bytes;
  } w;
  const auto layout = [&](Arena arena) {
    w.zt = arena.take<T>(rows * s.k);
    w.dyt = arena.take<T>(rows * s.C);
    w.z = arena.take<T>(weights ? rows * k_panels * kPanel : 0);
    w.dy = arena.take<T>(weights ? rows * c_panels * kPanel : 0);
    w.dz = arena.take<T>(dz ? rows * s.k : 0);
    for (int i = 0; i < 2; ++i) w.h[i] = arena.take<T>(tile), w.da[i] = arena.take<T>(tile);
    w.bytes = arena.take<uint8_t>(s.mask.drops() ? most_members * padded_slab * kPanel : 0);
    out.reserve(arena);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  parallel(most_members, [&](Team& team) {
    const PanelMaker<T> make = {s, U, b, w.bytes + team.rank * padded_slab * kPanel};
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      const int64_t row = panel * kPanel;
      const int here = rows_in_panel<T>(s, panel);
      pack_transposed(z + row * s.k, s.k, here, s.k, w.zt + row * s.k);
      pack_transposed(dy + row * s.C, s.C, here, s.C, w.dyt + row * s.C);
      if (dz) __builtin_memset(w.dz + row * s.k, 0, size_t(s.k) * kPanel * sizeof(T));
      if (!weights) continue;
      const auto pack_rows = [&](const T* from, int64_t columns, T* to) {
        for (int64_t j = 0; j < columns; j += kPanel) {
          T* const panel_rows = to + j * rows + row * kPanel;
          pack_columns(from + row * columns + j, columns, here, int(least(columns - j, int64_t(kPanel))), panel_rows);
          __builtin_memset(panel_rows + here * kPanel, 0, size_t(kPanel - here) * kPanel * sizeof(T));
        }
      };
      pack_rows(z, s.k, w.z);
      pack_rows(dy, s.C, w.dy);
    }
    team.barrier();
    if (dc && team.rank == 0) sum_panels(w.dyt, s.C, panels, s.C * kPanel, false, dc);

    int buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab) {
      const Slab slab = slab_at(s, u);
      count_slab(team);
      const int64_t tile_panel = slab.units * kPanel;
      const int64_t my_units = team.begin(slab.units), my_end = team.end(slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, buffer ^= 1) {
        const int64_t here = least(panels - first, block_panels);
        count_row_block(team);
        const int64_t at = saved_at(panels, slab, first);
        T* const da_tile = w.da[buffer];
        // With relu, what was kept is h itself: read in place, or widened into the tile.
        const T* const h_tile = relu && saved.full ? saved.full + at : w.h[buffer];

        for (int64_t i = team.begin(here); i < team.end(here); ++i) {
          const int64_t panel = first + i, row = panel * kPanel;
          T *const h = w.h[buffer] + i * tile_panel, *const da = da_tile + i * tile_panel;
          const T* a = h;
          if (saved.full) {
            a = saved.full + at + i * tile_panel;
          } else if (saved.bf16) {
            from_bfloat16(tile_panel, saved.bf16 + at + i * tile_panel, h);
          } else {
            make.pre_activation(slab, w.zt + row * s.k, h);
          }
          if (!(relu && saved.any())) make.activation(slab, panel, a, h, da);
          Product<T> dh = {W + u * s.C, s.C, 1, 0, 1, s.C, w.dyt + row * s.C, da, kPanel};
          dh.finish = relu ? Finish::gate : Finish::multiply;
          dh.aux = relu ? h_tile + i * tile_panel : nullptr;
          dh.scale = T(s.mask.scale());
          multiply<0, 1>(slab.units, kPanel, dh);
          if (!(relu && saved.full)) clear_padding(s, panel, slab.units, h);
          clear_padding(s, panel, slab.units, da);
          if (!dz) continue;
          Product<T> back = {U + u * s.k, 1, s.k, 0, 1, slab.units, da, w.dz + row * s.k, kPanel, Finish::add};
          multiply<1, 0>(s.k, kPanel, back);
        }
        team.barrier();
        if (!weights) continue;

        const Finish finish = first == 0 ? Finish::store : Finish::add;
        const auto gradient = [&](const T* tiles, const T* right, int64_t columns, T* to) {
          for (int64_t j = 0; to && j < columns; j += kPanel) {
            Product<T> p = {tiles + my_units * kPanel,
                            kPanel,
                            1,
                            tile_panel,
                            here,
                            kPanel,
                            right + (j * panels + first * kPanel) * kPanel,
                            to + my_units * columns + j,
                            columns,
                            finish,
                            true};
            multiply<kPanel, 1>(my_end - my_units, int(least(columns - j, int64_t(kPanel))), p);
          }
        };
        gradient(da_tile, w.z, s.k, out.dU(slab));
        gradient(h_tile, w.dy, s.C, out.dW(slab));
        if (T* const db = out.db(slab)) {
          sum_panels(da_tile + my_units * kPanel, my_end - my_units, here, tile_panel, first != 0, db + my_units);
        }
        if (first + here == panels) out.complete(slab, my_units, my_end);
      }
    }
    if (!dz) return;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      transpose(w.dz + panel * kPanel * s.k, kPanel, s.k, rows_in_panel<T>(s, panel), dz + panel * kPanel * s.k, s.k);
    }
  });
}

template <class T>
void shallow_backward(const ShallowBackward<T>& f) {
  const Gradients<T> out(f.shape, f.dU, f.db, f.dW);
  shallow_backward_into(f.shape, f.dy, f.z, f.U, f.b, f.W, f.saved, f.dz, f.dc, out);
}

template <class T>
void shallow_step(const ShallowStep<T>& f) {
  const Gradients<T> out(f.shape, f.U, f.b, f.W);
  shallow_backward_into(f.shape, f.dy, f.z, f.U.value, f.b.value, f.W.value, f.saved, f.dz, f.dc, out);
  update_range<T>(0, f.shape.C, f.dc, f.c);
}

}  // namespace MIMIC_ISA
}  // namespace mimic
