// shallow.h on tiles of bfloat16, with one term or three (bf16x3): see tile_forms.h. What is summed in float32 and who
// owns what is as in shallow_bf16.h; h and da are made 32 units by 32 rows at a time, and leave that block as tiles
// only.
#pragma once

#include "shallow.h"
#include "tile_forms.h"

namespace mimic {
namespace MIMIC_ISA {

// A block of h, or of da: [unit][row].
struct HiddenBlock {
  alignas(64) float values[kStep * kPanel];
};
static_assert(kStep == kPanel && kPanel % kTile == 0 && kStep == kMaskUnits, "blocks are square, and those of masks");

MIMIC_INLINE int64_t tiles_of(int64_t n) { return ceil_div(n, int64_t(kTile)); }
MIMIC_INLINE int64_t steps_of(int64_t n) { return ceil_div(n, int64_t(kStep)); }

template <class F>
TileMatrix take_tiles(Arena& arena, int64_t outers, int64_t steps) {
  return {arena.take<uint32_t>(F::kTerms * outers * steps * kTileWords), steps * kTileWords,
          outers * steps * kTileWords};
}

// One slab of U and W, in the forms that a pass takes; two of them, so that one barrier a slab is enough.
template <class F>
struct TiledSlab {
  TileMatrix U, U_turned, W, W_turned;

  static TiledSlab take(Arena& arena, const ShallowShape& s, bool back) {
    const int64_t blocks = steps_of(s.slab), none = 0;
    return {take_tiles<F>(arena, 2 * blocks, steps_of(s.k)), take_tiles<F>(arena, back ? tiles_of(s.k) : none, blocks),
            take_tiles<F>(arena, back ? 2 * blocks : none, steps_of(s.C)),
            take_tiles<F>(arena, back ? none : tiles_of(s.C), blocks)};
  }

  // This member's part of it.
  void fill(const Team& team, const ShallowShape& s, const Slab& slab, const Source& U_rows, const Source& W_rows,
            bool back) const {
    const int64_t blocks = steps_of(slab.units);
    for (int64_t i = team.begin(blocks); i < team.end(blocks); ++i) {
      const int64_t unit = slab.begin + i * kStep;
      put_source_along<F>(U_rows, s.H, s.k, unit, false, U.from(2 * i, 0));
      if (back) {
        put_source_across<F>(U_rows, s.H, s.k, unit, true, U_turned.from(0, i));
        put_source_along<F>(W_rows, s.H, s.C, unit, false, W.from(2 * i, 0));
      } else {
        put_source_across<F>(W_rows, s.H, s.C, unit, true, W_turned.from(0, i));
      }
    }
  }
};

// What one member needs to make blocks of h and da.
template <class F>
struct BlockMaker {
  const ShallowShape& s;
  const float* b;
  uint8_t bytes[kMaskUnits * kPanel];

  // The units of a block, fewer at the end of H.
  Slab units_at(const Slab& slab, int64_t block) const {
    return {slab.begin + block * kStep, least(slab.units - block * kStep, int64_t(kStep))};
  }

  // h, and for all but relu the slope; units beyond the last one are zeros in both.
  void hidden(const TiledSlab<F>& weights, const Slab& slab, int64_t block, int64_t panel, const TileMatrix& z,
              HiddenBlock& h, HiddenBlock* slope) {
    tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.U.from(2 * block, 0), z.from(2 * panel, 0), steps_of(s.k),
                                                     h.values, kPanel, false);
    const Slab units = units_at(slab, block);
    const bool relu = s.activation == Activation::relu;
    for (int64_t u = 0; u < units.units; ++u) {
      const float bias = b[units.begin + u];
      for (int r = 0; r < kPanel; r += kTile) {
        float* const at = h.values + u * kPanel + r;
        const Floats16 a = load<Floats16>(at) + bias;
        store(at, relu ? (a < Floats16{} ? Floats16{} : a) : a);  // NaN stays
      }
    }
    const PanelMaker<float> make = {s, nullptr, b, bytes};
    make.activation(units, panel, h.values, h.values, slope ? slope->values : nullptr);
    if (slope && units.units < kStep) {
      __builtin_memset(slope->values + units.units * kPanel, 0, size_t(kStep - units.units) * kPanel * sizeof(float));
    }
  }

  // da, from h and the slope of a block.
  void gradient(const TiledSlab<F>& weights, int64_t block, int64_t panel, const TileMatrix& dy, const HiddenBlock& h,
                const HiddenBlock& slope, HiddenBlock& da) const {
    tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.W.from(2 * block, 0), dy.from(2 * panel, 0), steps_of(s.C),
                                                     da.values, kPanel, false);
    const float scale = float(s.mask.scale());
    const bool relu = s.activation == Activation::relu;
    for (int i = 0; i < kStep * kPanel; i += kTile) {
      const Floats16 dh = load<Floats16>(da.values + i);
      store(da.values + i, relu ? (load<Floats16>(h.values + i) > Floats16{} ? dh * scale : Floats16{})
                                : dh * load<Floats16>(slope.values + i));
    }
  }
};

// to[j][row] += sum over the slab's units of M[unit][j] tile[unit][row], M being turned tiles.
template <class F>
MIMIC_INLINE void add_over_units(const Slab& slab, const TileMatrix& M_turned, const TileMatrix& across,
                                 int64_t columns, float* to) {
  tile_products<typename F::Tiles, F::kTerms>(M_turned, across, steps_of(slab.units), columns, kPanel, to, kPanel, true,
                                              true);
}

template <class F>
void shallow_forward_tiles(const ShallowForwardBf16& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), y_panel = tiles_of(s.C) * kTile * kPanel;
  const int threads = threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread);
  const int most_members = int(least(int64_t(threads), panels));
  TileMatrix z, all_h;
  float* y_panels;
  TiledSlab<F> slabs[2];
  const auto layout = [&](Arena arena) {
    z = take_tiles<F>(arena, 2 * panels, steps_of(s.k));
    all_h = take_tiles<F>(arena, 2 * most_members, steps_of(s.slab));
    y_panels = arena.take<float>(panels * y_panel);
    for (auto& slab : slabs) slab = TiledSlab<F>::take(arena, s, false);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  parallel(most_members, [&](Team& team) {
    F::Tiles::configure();
    const TileMatrix h_across = all_h.from(2 * team.rank, 0);
    BlockMaker<F> make = {s, f.b, {}};
    HiddenBlock h;
    const int64_t first = team.begin(panels), last = team.end(panels);
    for (int64_t panel = first; panel < last; ++panel) {
      put_source_along<F>(f.z, s.B, s.k, panel * kPanel, true, z.from(2 * panel, 0));
      float* const y = y_panels + panel * y_panel;
      for (int64_t i = 0; i < y_panel; ++i) y[i] = i < s.C * kPanel ? f.c[i / kPanel] : 0;
    }
    int buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab, buffer ^= 1) {
      const Slab slab = slab_at(s, u);
      const TiledSlab<F>& weights = slabs[buffer];
      weights.fill(team, s, slab, f.U, f.W, false);
      team.barrier();
      for (int64_t panel = first; panel < last; ++panel) {
        for (int64_t block = 0; block < steps_of(slab.units); ++block) {
          make.hidden(weights, slab, block, panel, z, h, nullptr);
          put_across<F>(h.values, kPanel, kStep, kPanel, false, h_across.from(0, block));
        }
        add_over_units<F>(slab, weights.W_turned, h_across, s.C, y_panels + panel * y_panel);
      }
    }
    for (int64_t panel = first; panel < last; ++panel) {
      transpose(y_panels + panel * y_panel, kPanel, s.C, rows_in_panel<float>(s, panel), f.y + panel * kPanel * s.C,
                s.C);
    }
    F::Tiles::release();
  });
}

// sums[i] (+)= sum over the rows of tiles [unit / 16][panel], in a fixed order.
template <class F>
void sum_tiles(const TileMatrix& tiles, int64_t units, int64_t panels, bool add, float* sums) {
  for (int64_t u = 0; u < units; ++u) {
    Floats16 low = {}, high = {};
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int t = F::kTerms - 1; t >= 0; --t) {
        const Rounded words = load<Rounded>(tiles.tile(u / kTile, panel, t) + u % kTile * kTile);
        const Rounded halves[2] = {words << 16, words & 0xFFFF0000u};
        Floats16 values[2];
        __builtin_memcpy(values, halves, sizeof(values));
        low += values[0], high += values[1];
      }
    }
    low += high;
    float total = 0;
    for (int lane = 0; lane < kTile; ++lane) total += low[lane];
    sums[u] = add ? sums[u] + total : total;
  }
}

// See shallow_backward_into.
template <class F, class Out>
void shallow_backward_tiles_into(const ShallowShape& s, const Source& dy, const Source& z, const Source& U,
                                 const float* b, const Source& W, float* dz, Out& out) {
  const bool weights_wanted = out.any();
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), block_panels = s.row_block / kPanel;
  const int64_t dz_panel = tiles_of(s.k) * kTile * kPanel, slab_blocks = steps_of(s.slab), none = 0;
  const int threads = threads_for(s.B * s.H * (s.k + s.C), kProductsWorthAThread);
  const int most_members = int(least(int64_t(threads), least(panels, block_panels)));
  struct {
    TileMatrix z, dy, z_steps, dy_steps, all_da;
    struct {
      TileMatrix h, da;
    } made[2];
    float* dz;
    TiledSlab<F> slab[2];
  } w;
  const auto layout = [&](Arena arena) {
    w.z = take_tiles<F>(arena, 2 * panels, steps_of(s.k));
    w.dy = take_tiles<F>(arena, 2 * panels, steps_of(s.C));
    w.z_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.k) : none, panels);
    w.dy_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.C) : none, panels);
    for (auto& made : w.made) {
      made.h = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
      made.da = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
    }
    w.all_da = take_tiles<F>(arena, dz ? 2 * most_members : none, slab_blocks);
    w.dz = arena.take<float>(dz ? panels * dz_panel : none);
    for (auto& slab : w.slab) slab = TiledSlab<F>::take(arena, s, true);
    out.reserve(arena);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  parallel(most_members, [&](Team& team) {
    F::Tiles::configure();
    const TileMatrix da_across = w.all_da.from(2 * team.rank, 0);
    BlockMaker<F> make = {s, b, {}};
    HiddenBlock h, slope, da;
    HiddenBlock* const slope_wanted = s.activation == Activation::relu ? nullptr : &slope;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      const int64_t row = panel * kPanel;
      put_source_along<F>(z, s.B, s.k, row, true, w.z.from(2 * panel, 0));
      put_source_along<F>(dy, s.B, s.C, row, true, w.dy.from(2 * panel, 0));
      if (dz) __builtin_memset(w.dz + panel * dz_panel, 0, size_t(dz_panel) * sizeof(float));
      if (!weights_wanted) continue;
      put_source_across<F>(z, s.B, s.k, row, false, w.z_steps.from(0, panel));
      put_source_across<F>(dy, s.B, s.C, row, false, w.dy_steps.from(0, panel));
    }
    int buffer = 0, slab_buffer = 0;
    for (int64_t u = 0; u < s.H; u += s.slab, slab_buffer ^= 1) {
      const Slab slab = slab_at(s, u);
      const TiledSlab<F>& weights = w.slab[slab_buffer];
      weights.fill(team, s, slab, U, W, true);
      team.barrier();
      const int64_t blocks = steps_of(slab.units), my_units = least(kStep * team.begin(blocks), slab.units),
                    my_end = least(kStep * team.end(blocks), slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, buffer ^= 1) {
        const int64_t here = least(panels - first, block_panels);
        for (int64_t i = team.begin(here); i < team.end(here); ++i) {
          const int64_t panel = first + i;
          for (int64_t block = 0; block < blocks; ++block) {
            make.hidden(weights, slab, block, panel, w.z, h, slope_wanted);
            clear_padding(s, panel, kStep, h.values);
            make.gradient(weights, block, panel, w.dy, h, slope, da);
            clear_padding(s, panel, kStep, da.values);
            if (weights_wanted) {
              put_along<F>(h.values, kPanel, kStep, kPanel, false, w.made[buffer].h.from(2 * block, i));
              put_along<F>(da.values, kPanel, kStep, kPanel, false, w.made[buffer].da.from(2 * block, i));
            }
            if (dz) put_across<F>(da.values, kPanel, kStep, kPanel, false, da_across.from(0, block));
          }
          if (dz) add_over_units<F>(slab, weights.U_turned, da_across, s.k, w.dz + panel * dz_panel);
        }
        team.barrier();
        if (!weights_wanted) continue;

        const auto gradient = [&](const TileMatrix& tiles, const TileMatrix& right, int64_t columns, float* to) {
          if (!to) return;
          tile_products<typename F::Tiles, F::kTerms>(tiles.from(my_units / kTile, 0), right.from(0, first), here,
                                                      my_end - my_units, columns, to + my_units * columns, columns,
                                                      first != 0, false);
        };
        gradient(w.made[buffer].da, w.z_steps, s.k, out.dU(slab));
        gradient(w.made[buffer].h, w.dy_steps, s.C, out.dW(slab));
        if (float* const db = out.db(slab)) {
          sum_tiles<F>(w.made[buffer].da.from(my_units / kTile, 0), my_end - my_units, here, first != 0, db + my_units);
        }
        if (first + here == panels) out.complete(slab, my_units, my_end);
      }
    }
    for (int64_t panel = team.begin(panels); dz && panel < team.end(panels); ++panel) {
      transpose(w.dz + panel * dz_panel, kPanel, s.k, rows_in_panel<float>(s, panel), dz + panel * kPanel * s.k, s.k);
    }
    F::Tiles::release();
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
