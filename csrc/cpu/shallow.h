// z -> h = dropout(f(z U^T + b)) -> y = h W + c, and back, with h in cache only.
//
// Rows run along vector lanes, in panels of 32, so U, b, W and their gradients are read and written in place, a
// slab of hidden units at a time. Forward: a thread owns panels of rows and streams the slabs. Backward, in each
// slab and block of rows: threads own panels (h, da, dz); then, past a barrier, units (dU, db, dW, and
// the optimizer step). Tiles are double-buffered, so one barrier a block is enough. Sums over H
// go slab by slab and sums over B block by block, whatever the number of threads.
#pragma once

#include "cpu/operands.h"

namespace mimic {
namespace MIMIC_ISA {

// What one member needs to make a panel of h.
template <class T>
struct PanelMaker {
  const ShallowShape& s;
  const T* b;
  uint8_t* bytes;  // slab x 32, if there is dropout

  // a = z U^T + b (or, for relu, its positive part) of one panel.
  template <class E>
  void pre_activation(const Slab& slab, const E* U_along, const E* z_panel, T* a) const {
    const int64_t steps = elements_of<E>(s.k);
    Product<T, E> p = {U_along, steps, 1, 0, 1, steps, z_panel, a, kPanel};
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

// to[column][row] += sum over a slab's units of M[unit][column] tile[unit][row].
template <class T, class E>
MIMIC_INLINE void add_over_units(const Slab& slab, const E* M_down, int64_t columns, const E* tile_down, T* to) {
  multiply<1, 0>(
      columns, kPanel,
      Product<T, E>{M_down, 1, columns, 0, 1, elements_of<E>(slab.units), tile_down, to, kPanel, Finish::add});
}

template <class Operands>
struct ByMicrokernel {
  using T = typename Operands::Value;
  using E = typename Operands::Element;
  using M = typename Operands::Matrix;

  static void forward(const ShallowForward<T, M>& f);
  static void backward(const ShallowBackward<T, M>& f, Gradients<T> out);  // `out` takes the weights' gradients
};

template <class Operands>
void ByMicrokernel<Operands>::forward(const ShallowForward<T, M>& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = panels_of(s), z_panel = elements_of<E>(s.k) * kPanel, y_panel = s.C * kPanel;
  const bool relu = s.activation == Activation::relu;
  const int members = most_members(s, panels);
  Operands operands(s, members, false);
  E* z;
  T *y, *tiles;
  uint8_t* bytes;
  const auto layout = [&](Arena arena) {
    z = arena.take<E>(panels * z_panel);
    y = arena.take<T>(panels * y_panel);
    tiles = arena.take<T>(members * s.slab * kPanel);
    bytes = arena.take<uint8_t>(s.mask.drops() ? members * s.slab * kPanel : 0);
    operands.reserve(arena);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = Operands::kMultiplier;
  parallel(members, [&](Team& team) {
    T* const tile = tiles + team.rank * s.slab * kPanel;
    const PanelMaker<T> make = {s, f.b, bytes + team.rank * s.slab * kPanel};
    const int64_t first = team.begin(panels), last = team.end(panels);
    for (int64_t panel = first; panel < last; ++panel) {
      operands.pack_rows(team, f.z, s.k, panel, z + panel * z_panel);
      for (int64_t i = 0; i < y_panel; ++i) y[panel * y_panel + i] = f.c[i / kPanel];
    }
    for (int64_t u = 0; u < s.H; u += s.slab) {
      const Slab slab = slab_at(s, u);
      count_slab(team);
      const auto weights = operands.weights(team, slab, f.U, f.W);
      for (int64_t panel = first; panel < last; ++panel) {
        team.look();
        const int64_t at = saved_at(panels, slab, panel), n = slab.units * kPanel;
        T* const a = f.save.full ? f.save.full + at : tile;
        T* const h = relu ? a : tile;
        make.pre_activation(slab, weights.U_along, z + panel * z_panel, a);
        if (f.save.any()) clear_padding(s, panel, slab.units, a);
        if (f.save.bf16 && !relu) to_bfloat16(n, a, f.save.bf16 + at);
        make.activation(slab, panel, a, h, nullptr);
        if (f.save.bf16 && relu) to_bfloat16(n, h, f.save.bf16 + at);
        const E* const h_down = operands.keep(team, slab.units, h, nullptr, true);
        add_over_units(slab, weights.W_down, s.C, h_down, y + panel * y_panel);
      }
    }
    unpack(team, s, y, s.C, f.y);
  });
}

template <class Operands>
void ByMicrokernel<Operands>::backward(const ShallowBackward<T, M>& f, Gradients<T> out) {
  const ShallowShape& s = f.shape;
  const bool weights_wanted = out.any(), relu = s.activation == Activation::relu;
  const bool h_is_saved = relu && f.saved.any(), h_in_full = relu && f.saved.full;
  const int64_t panels = panels_of(s), block_panels = s.row_block / kPanel;
  const int64_t z_panel = elements_of<E>(s.k) * kPanel, dy_panel = elements_of<E>(s.C) * kPanel;
  const int64_t row_panel = kLine<E> * kPanel, columns = panels * row_panel;  // elements of 32 columns: 32 rows, all
  const int64_t tiles = block_panels * s.slab * kLine<E>;
  const int members = most_members(s, least(panels, block_panels));
  Operands operands(s, members, true);
  struct {
    E *z, *dy, *z_steps, *dy_steps, *h[2], *da[2];
    T* dz;
    uint8_t* bytes;
  } w;
  const auto layout = [&](Arena arena) {
    w.z = arena.take<E>(panels * z_panel);
    w.dy = arena.take<E>(panels * dy_panel);
    w.z_steps = arena.take<E>(weights_wanted ? ceil_div(s.k, int64_t(kPanel)) * columns : 0);
    w.dy_steps = arena.take<E>(weights_wanted ? ceil_div(s.C, int64_t(kPanel)) * columns : 0);
    w.dz = arena.take<T>(f.dz ? panels * kPanel * s.k : 0);
    for (int i = 0; i < 2; ++i) w.h[i] = arena.take<E>(tiles), w.da[i] = arena.take<E>(tiles);
    w.bytes = arena.take<uint8_t>(s.mask.drops() ? members * s.slab * kPanel : 0);
    operands.reserve(arena);
    out.reserve(arena);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = Operands::kMultiplier;
  parallel(members, [&](Team& team) {
    const PanelMaker<T> make = {s, f.b, w.bytes + team.rank * s.slab * kPanel};
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      operands.pack_rows(team, f.z, s.k, panel, w.z + panel * z_panel);
      operands.pack_rows(team, f.dy, s.C, panel, w.dy + panel * dy_panel);
      if (f.dz) __builtin_memset(w.dz + panel * kPanel * s.k, 0, size_t(s.k) * kPanel * sizeof(T));
      if (!weights_wanted) continue;
      operands.pack_steps(f.z, s.k, panel, columns, w.z_steps + panel * row_panel);
      operands.pack_steps(f.dy, s.C, panel, columns, w.dy_steps + panel * row_panel);
    }
    team.barrier();
    if (f.dc && team.rank == 0) operands.sum_rows_of(f.dy, w.dy, f.dc);

    int buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab) {
      const Slab slab = slab_at(s, u);
      count_slab(team);
      const auto weights = operands.weights(team, slab, f.U, f.W);
      const int64_t tile = slab.units * kPanel, tile_elements = slab.units * kLine<E>;
      const int64_t my_units = team.begin(slab.units), my_end = team.end(slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, buffer ^= 1) {
        const int64_t here = least(panels - first, block_panels);
        count_row_block(team);
        for (int64_t i = team.begin(here); i < team.end(here); ++i) {
          team.look();
          const int64_t panel = first + i, at = saved_at(panels, slab, panel);
          E *const h_tile = w.h[buffer] + i * tile_elements, *const da_tile = w.da[buffer] + i * tile_elements;
          T *const h = operands.room(team, 0, h_tile), *const da = operands.room(team, 1, da_tile);
          const T* const a = f.saved.full ? f.saved.full + at : h;
          if (f.saved.bf16) {
            from_bfloat16(tile, f.saved.bf16 + at, h);
          } else if (!f.saved.full) {
            make.pre_activation(slab, weights.U_along, w.z + panel * z_panel, h);
          }
          if (!h_is_saved) make.activation(slab, panel, a, h, da);
          const T* const made = h_in_full ? a : h;
          const int64_t steps = elements_of<E>(s.C);
          Product<T, E> dh = {weights.W_along, steps, 1, 0, 1, steps, w.dy + panel * dy_panel, da, kPanel};
          dh.finish = relu ? Finish::gate : Finish::multiply;
          dh.aux = relu ? made : nullptr;
          dh.scale = T(s.mask.scale());
          multiply<0, 1>(slab.units, kPanel, dh);
          if (!h_in_full) clear_padding(s, panel, slab.units, h);
          clear_padding(s, panel, slab.units, da);
          if (weights_wanted) operands.keep(team, slab.units, made, h_tile, false);
          const E* const da_down = operands.keep(team, slab.units, da, weights_wanted ? da_tile : nullptr, f.dz);
          if (f.dz) add_over_units(slab, weights.U_down, s.k, da_down, w.dz + panel * kPanel * s.k);
        }
        team.barrier();
        if (!weights_wanted) continue;

        const Finish finish = first == 0 ? Finish::store : Finish::add;
        const auto gradient = [&](const E* rows, const E* steps, int64_t width, T* to) {
          for (int64_t j = 0; to && j < width; j += kPanel) {
            const E* const right = steps + j / kPanel * columns + first * row_panel;
            multiply<kLine<E>, 1>(my_end - my_units, int(least(width - j, int64_t(kPanel))),
                                  Product<T, E>{rows + my_units * kLine<E>, kLine<E>, 1, tile_elements, here, kLine<E>,
                                                right, to + my_units * width + j, width, finish, true});
          }
        };
        const E* h_tiles = w.h[buffer];
        if constexpr (std::is_same<E, T>::value) {
          if (h_in_full) h_tiles = f.saved.full + saved_at(panels, slab, first);  // read in place
        }
        gradient(w.da[buffer], w.z_steps, s.k, out.dU(slab));
        gradient(h_tiles, w.dy_steps, s.C, out.dW(slab));
        if (T* const db = out.db(slab)) {
          operands.sum_tiles(w.da[buffer] + my_units * kLine<E>, my_end - my_units, here, tile_elements, first != 0,
                             db + my_units);
        }
        if (first + here == panels) out.complete(slab, my_units, my_end);
      }
    }
    if (f.dz) unpack(team, s, w.dz, s.k, f.dz);
  });
}

template <class By, class T, class M>
void shallow_backward(const ShallowBackward<T, M>& f) {
  By::backward(f, Gradients<T>(f.shape, f.dU, f.db, f.dW));
}

template <class By, class T, class M>
void shallow_step(const ShallowStep<T, M>& f) {
  const ShallowBackward<T, M> back = {f.shape, f.dy, f.z,     f.U.value, f.W.value, f.b.value,
                                      f.saved, f.dz, nullptr, nullptr,   nullptr,   f.dc};
  By::backward(back, Gradients<T>(f.shape, f.U, f.b, f.W));
  update_range<T>(0, f.shape.C, f.dc, f.c);
}

template <class By>
constexpr ShallowKernels<typename By::T, typename By::M> shallow_kernels = {By::forward, shallow_backward<By>,
                                                                            shallow_step<By>};

}  // namespace MIMIC_ISA
}  // namespace mimic
