// shallow.h with bfloat16 operands: weights, z, dy and tiles are rounded, sums are float32, masters stay as they are.
// Each slab of weights is rounded once, when its turn comes, into both forms that products take (see round.h), by all
// threads together; tiles of h and da are made in float32, a panel at a time, and rounded as they are kept.
#pragma once

#include "cpu/shallow.h"
#include "cpu/vector/round.h"

namespace mimic {
namespace MIMIC_ISA {

// One slab of U and W; two of them, so that one barrier a slab is enough.
struct Bf16Slab {
  uint32_t *U_along, *U_down, *W_along, *W_down;

  static Bf16Slab take(Arena& arena, const ShallowShape& s) {
    return {arena.take<uint32_t>(s.slab * pairs_of(s.k)), arena.take<uint32_t>(s.slab / 2 * s.k),
            arena.take<uint32_t>(s.slab * pairs_of(s.C)), arena.take<uint32_t>(s.slab / 2 * s.C)};
  }

  // This member's part. `back` says which forms: those of the forward or of the backward pass.
  template <class E>
  void round(const Team& team, const ShallowShape& s, const Slab& slab, const Source& U, const Source& W,
             bool back) const {
    const int64_t pairs = pairs_of(slab.units);
    const int64_t begin = slab.begin + 2 * team.begin(pairs);
    const int64_t end = least(slab.begin + 2 * team.end(pairs), slab.begin + slab.units), at = begin - slab.begin;
    round_rows<E>(U, s.H, s.k, begin, end, U_along + at * pairs_of(s.k), back ? U_down + at / 2 * s.k : nullptr);
    round_rows<E>(W, s.H, s.C, begin, end, back ? W_along + at * pairs_of(s.C) : nullptr,
                  back ? nullptr : W_down + at / 2 * s.C);
  }
};

// The tile of one slab and panel, from float32: [unit][16 pairs of rows] and [pair of units][32 rows].
template <class E>
MIMIC_NOINLINE void round_tile(int64_t units, const float* tile, uint32_t* along, uint32_t* down) {
  for (int64_t u = 0; u < units; ++u) {
    const float* const row = tile + u * kPanel;
    if (along) round_along<E>(kPanel, row, along + u * kPanel / 2);
    if (down && u % 2 == 0) round_down<E>(kPanel, row, u + 1 < units ? row + kPanel : nullptr, down + u / 2 * kPanel);
  }
}

template <class E>
struct Bf16Panel {
  const ShallowShape& s;
  const Bf16Slab& weights;

  static const E* elements(const uint32_t* words) { return reinterpret_cast<const E*>(words); }

  // a = z U^T + b (or its positive part, for relu).
  void pre_activation(const Slab& slab, const float* b, const uint32_t* z_panel, float* a) const {
    const int64_t pairs = pairs_of(s.k);
    Product<float, E> p = {elements(weights.U_along), pairs, 1, 0, 1, pairs, elements(z_panel), a, kPanel};
    p.finish = s.activation == Activation::relu ? Finish::relu : Finish::bias;
    p.aux = b + slab.begin;
    multiply<0, 1>(slab.units, kPanel, p);
  }

  // to[j][row] += sum over units of tile[unit][row] M[unit][j].
  void add_over_units(const Slab& slab, const uint32_t* tile_down, const uint32_t* M_down, int64_t columns,
                      float* to) const {
    multiply<1, 0>(columns, kPanel,
                   Product<float, E>{elements(M_down), 1, columns, 0, 1, pairs_of(slab.units), elements(tile_down), to,
                                     kPanel, Finish::add});
  }
};

template <class E>
void shallow_forward_bf16(const ShallowForwardBf16& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), padded = ceil_div(s.slab, int64_t(kMaskUnits)) * kMaskUnits;
  const bool relu = s.activation == Activation::relu;
  const int threads = threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread);
  const int most_members = int(least(int64_t(threads), panels));
  uint32_t *z, *words, *h_down;
  float *y_panels, *tiles;
  uint8_t* all_bytes;
  Bf16Slab slabs[2];
  const auto layout = [&](Arena arena) {
    z = arena.take<uint32_t>(panels * pairs_of(s.k) * kPanel);
    words = arena.take<uint32_t>(most_members * pairs_of(s.k) * kPanel);
    y_panels = arena.take<float>(panels * s.C * kPanel);
    tiles = arena.take<float>(most_members * padded * kPanel);
    h_down = arena.take<uint32_t>(most_members * padded / 2 * kPanel);
    all_bytes = arena.take<uint8_t>(s.mask.drops() ? most_members * padded * kPanel : 0);
    for (Bf16Slab& slab : slabs) slab = Bf16Slab::take(arena, s);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = Multiplier::pairs;
  parallel(most_members, [&](Team& team) {
    float* const tile = tiles + team.rank * padded * kPanel;
    uint32_t* const h = h_down + team.rank * padded / 2 * kPanel;
    const PanelMaker<float> make = {s, nullptr, f.b, all_bytes + team.rank * padded * kPanel};
    const int64_t first = team.begin(panels), last = team.end(panels);
    for (int64_t panel = first; panel < last; ++panel) {
      round_panel<E>(f.z, s.B, s.k, panel * kPanel, words + team.rank * pairs_of(s.k) * kPanel,
                     z + panel * pairs_of(s.k) * kPanel);
      float* const y_panel = y_panels + panel * kPanel * s.C;
      for (int64_t i = 0; i < s.C * kPanel; ++i) y_panel[i] = f.c[i / kPanel];
    }
    int buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab, buffer ^= 1) {
      const Slab slab = slab_at(s, u);
      const Bf16Slab& weights = slabs[buffer];
      count_slab(team);
      weights.template round<E>(team, s, slab, f.U, f.W, false);
      team.barrier();
      const Bf16Panel<E> products = {s, weights};
      for (int64_t panel = first; panel < last; ++panel) {
        products.pre_activation(slab, f.b, z + panel * pairs_of(s.k) * kPanel, tile);
        const int64_t at = saved_at(panels, slab, panel), n = slab.units * kPanel;
        if (!relu) write_h(f.save, at, n, tile);
        make.activation(slab, panel, tile, tile, nullptr);
        if (relu) write_h(f.save, at, n, tile);
        round_tile<E>(slab.units, tile, nullptr, h);
        products.add_over_units(slab, h, weights.W_down, s.C, y_panels + panel * s.C * kPanel);
      }
    }
    for (int64_t panel = first; panel < last; ++panel) {
      transpose(y_panels + panel * s.C * kPanel, kPanel, s.C, rows_in_panel<float>(s, panel),
                f.y + panel * kPanel * s.C, s.C);
    }
  });
}

// See shallow_backward_into.
template <class E>
void shallow_backward_bf16_into(const ShallowBackwardBf16& f, Gradients<float> out) {
  const ShallowShape& s = f.shape;
  float* const dz = f.dz;
  const bool weights_wanted = out.any(), relu = s.activation == Activation::relu;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel));
  const int64_t k_panels = ceil_div(s.k, int64_t(kPanel)), c_panels = ceil_div(s.C, int64_t(kPanel));
  const int64_t padded = ceil_div(s.slab, int64_t(kMaskUnits)) * kMaskUnits, widest = pairs_of(s.k > s.C ? s.k : s.C);
  const int64_t block_panels = s.row_block / kPanel, tile = block_panels * padded * kPanel / 2;
  const int64_t steps = panels * kPanel / 2 * kPanel;  // words of all rows of one panel of columns
  const int threads = threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread);
  const int most_members = int(least(int64_t(threads), least(panels, block_panels)));
  struct {
    uint32_t *z, *dy, *z_steps, *dy_steps, *words, *h[2], *da[2], *da_down;
    float *dz, *a, *slope;
    uint8_t* bytes;
    Bf16Slab slab[2];
  } w;
  const auto layout = [&](Arena arena) {
    w.z = arena.take<uint32_t>(panels * pairs_of(s.k) * kPanel);
    w.dy = arena.take<uint32_t>(panels * pairs_of(s.C) * kPanel);
    w.z_steps = arena.take<uint32_t>(weights_wanted ? k_panels * steps : 0);
    w.dy_steps = arena.take<uint32_t>(weights_wanted ? c_panels * steps : 0);
    w.words = arena.take<uint32_t>(most_members * widest * kPanel);
    for (int i = 0; i < 2; ++i) w.h[i] = arena.take<uint32_t>(tile), w.da[i] = arena.take<uint32_t>(tile);
    w.da_down = arena.take<uint32_t>(most_members * padded / 2 * kPanel);
    w.dz = arena.take<float>(dz ? panels * kPanel * s.k : 0);
    w.a = arena.take<float>(most_members * padded * kPanel);
    w.slope = arena.take<float>(most_members * padded * kPanel);
    w.bytes = arena.take<uint8_t>(s.mask.drops() ? most_members * padded * kPanel : 0);
    for (Bf16Slab& slab : w.slab) slab = Bf16Slab::take(arena, s);
    out.reserve(arena);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = Multiplier::pairs;
  parallel(most_members, [&](Team& team) {
    const PanelMaker<float> make = {s, nullptr, f.b, w.bytes + team.rank * padded * kPanel};
    float *const a = w.a + team.rank * padded * kPanel, *const slope = w.slope + team.rank * padded * kPanel;
    uint32_t* const words = w.words + team.rank * widest * kPanel;
    uint32_t* const da_down = w.da_down + team.rank * padded / 2 * kPanel;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      const int64_t row = panel * kPanel;
      round_panel<E>(f.z, s.B, s.k, row, words, w.z + row * pairs_of(s.k));
      round_panel<E>(f.dy, s.B, s.C, row, words, w.dy + row * pairs_of(s.C));
      if (dz) __builtin_memset(w.dz + row * s.k, 0, size_t(s.k) * kPanel * sizeof(float));
      if (!weights_wanted) continue;
      round_steps<E>(f.z, s.B, s.k, row, steps, w.z_steps + row / 2 * kPanel);
      round_steps<E>(f.dy, s.B, s.C, row, steps, w.dy_steps + row / 2 * kPanel);
    }
    int buffer = 0, slab_buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab, slab_buffer ^= 1) {
      const Slab slab = slab_at(s, u);
      const Bf16Slab& weights = w.slab[slab_buffer];
      count_slab(team);
      weights.template round<E>(team, s, slab, f.U, f.W, true);
      team.barrier();
      const Bf16Panel<E> products = {s, weights};
      const int64_t tile_panel = slab.units * kPanel, my_units = team.begin(slab.units), my_end = team.end(slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, buffer ^= 1) {
        const int64_t here = least(panels - first, block_panels);
        count_row_block(team);
        uint32_t *const h_tile = w.h[buffer], *const da_tile = w.da[buffer];
        for (int64_t i = team.begin(here); i < team.end(here); ++i) {
          const int64_t panel = first + i, row = panel * kPanel;
          if (f.saved.any()) {
            read_h(f.saved, saved_at(panels, slab, panel), tile_panel, a);
          } else {
            products.pre_activation(slab, f.b, w.z + row * pairs_of(s.k), a);
          }
          if (!(relu && f.saved.any())) make.activation(slab, panel, a, a, slope);
          clear_padding(s, panel, slab.units, a);
          if (weights_wanted) round_tile<E>(slab.units, a, h_tile + i * tile_panel / 2, nullptr);
          Product<float, E> dh = {products.elements(weights.W_along),
                                  pairs_of(s.C),
                                  1,
                                  0,
                                  1,
                                  pairs_of(s.C),
                                  products.elements(w.dy + row * pairs_of(s.C)),
                                  slope,
                                  kPanel};
          dh.finish = relu ? Finish::gate : Finish::multiply;
          dh.aux = relu ? a : nullptr;
          dh.scale = float(s.mask.scale());
          multiply<0, 1>(slab.units, kPanel, dh);
          clear_padding(s, panel, slab.units, slope);
          round_tile<E>(slab.units, slope, weights_wanted ? da_tile + i * tile_panel / 2 : nullptr,
                        dz ? da_down : nullptr);
          if (dz) products.add_over_units(slab, da_down, weights.U_down, s.k, w.dz + row * s.k);
        }
        team.barrier();
        if (!weights_wanted) continue;

        const Finish finish = first == 0 ? Finish::store : Finish::add;
        const auto gradient = [&](const uint32_t* tiles, const uint32_t* right, int64_t columns, float* to) {
          for (int64_t j = 0; to && j < columns; j += kPanel) {
            const uint32_t* const panel_steps = right + j / kPanel * steps + first * kPanel / 2 * kPanel;
            multiply<kPanel / 2, 1>(my_end - my_units, int(least(columns - j, int64_t(kPanel))),
                                    Product<float, E>{products.elements(tiles + my_units * kPanel / 2), kPanel / 2, 1,
                                                      tile_panel / 2, here, kPanel / 2, products.elements(panel_steps),
                                                      to + my_units * columns + j, columns, finish, true});
          }
        };
        gradient(da_tile, w.z_steps, s.k, out.dU(slab));
        gradient(h_tile, w.dy_steps, s.C, out.dW(slab));
        if (float* const db = out.db(slab)) {
          sum_pairs(da_tile + my_units * kPanel / 2, my_end - my_units, here, tile_panel / 2, first != 0,
                    db + my_units);
        }
        if (first + here == panels) out.complete(slab, my_units, my_end);
      }
    }
    if (!dz) return;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      transpose(w.dz + panel * kPanel * s.k, kPanel, s.k, rows_in_panel<float>(s, panel), dz + panel * kPanel * s.k,
                s.k);
    }
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
