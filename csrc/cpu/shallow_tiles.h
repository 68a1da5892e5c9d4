// shallow.h on tiles of bfloat16, with one term or three (bf16x3): see tile_forms.h. What is summed in float32 and who
// owns what is as in shallow_bf16.h; h and da are made 32 units by 32 rows at a time, and leave that block as tiles
// only.
#pragma once

#include "shallow.h"
#include "tile_forms.h"

namespace mimic {
namespace MIMIC_ISA {

static_assert(kStep == kPanel && kPanel % kTile == 0 && kStep == kMaskUnits, "blocks are square, and those of masks");

MIMIC_INLINE int64_t tiles_of(int64_t n) { return ceil_div(n, int64_t(kTile)); }
MIMIC_INLINE int64_t steps_of(int64_t n) { return ceil_div(n, int64_t(kStep)); }

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

// 32 units of 32 rows, [unit][row], on their way to being tiles.
struct alignas(64) Block {
  float h[kStep * kPanel];   // the product at first, then h
  float da[kStep * kPanel];  // the product at first, then da
  float slope[kStep * kPanel];
  uint8_t bytes[kStep * kPanel];  // of the mask
  Slab units;                     // fewer than 32 at the end of H
  int64_t panel;
};

// What one member needs to make blocks. While the products of one are made, the one before is finished, some units at a
// time.
template <class F>
class BlockMaker {
 public:
  BlockMaker(const ShallowShape& s, const float* b) : s_(s), b_(b) {}

  // h, and da where `dy` is given, of all blocks of a slab in a panel. finish(block's number, block, begin, end) is
  // called on all units of all blocks, in order, a number of pairs at a time.
  template <class Finish>
  void each_block(const TiledSlab<F>& weights, const Slab& slab, int64_t panel, const TileMatrix& z,
                  const TileMatrix* dy, Finish finish) {
    const int64_t blocks = steps_of(slab.units), k_steps = steps_of(s_.k), c_steps = dy ? steps_of(s_.C) : 0;
    const auto part = [&](int64_t step) { return int(kStep / 2 * step / (k_steps + c_steps)) * 2; };
    for (int64_t i = 0; i < blocks; ++i) {
      Block &block = blocks_[i & 1], &before = blocks_[~i & 1];
      block.units = {slab.begin + i * kStep, least(slab.units - i * kStep, int64_t(kStep))};
      block.panel = panel;
      const auto meanwhile = [&](int64_t step) {
        if (i > 0) finish_units(before, dy, i - 1, part(step), part(step + 1), finish);
      };
      tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.U.from(2 * i, 0), z.from(2 * panel, 0), k_steps, block.h,
                                                       kPanel, false, meanwhile);
      if (dy) {
        tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.W.from(2 * i, 0), dy->from(2 * panel, 0), c_steps,
                                                         block.da, kPanel, false,
                                                         [&](int64_t step) { meanwhile(k_steps + step); });
      }
      if (i > 0 && k_steps + c_steps == 0) finish_units(before, dy, i - 1, 0, kStep, finish);
    }
    finish_units(blocks_[(blocks - 1) & 1], dy, blocks - 1, 0, kStep, finish);
  }

 private:
  template <class Finish>
  void finish_units(Block& block, bool gradients, int64_t i, int begin, int end, Finish finish) {
    if (begin == end) return;
    if (begin == 0 && s_.mask.drops()) {
      mask_panel(s_.mask, block.panel * kPanel, block.units.begin, kStep, block.bytes);
    }
    hidden(block, gradients, begin, end);
    if (gradients) gradient(block, begin, end);
    finish(i, block, begin, end);
  }

  // Units beyond the last one have no bias and no slope: their weights are zeros, and so is all that they make.
  void hidden(Block& block, bool gradients, int begin, int end) const {
    const bool relu = s_.activation == Activation::relu;
    const int last = int(least(int64_t(end), block.units.units)), n = (end - begin) * kPanel;
    for (int u = begin; u < last; ++u) {
      const float bias = b_[block.units.begin + u];
      for (int i = u * kPanel; i < (u + 1) * kPanel; i += kTile) {
        const Floats16 a = load<Floats16>(block.h + i) + bias;
        store(block.h + i, relu ? (a < Floats16{} ? Floats16{} : a) : a);  // NaN stays
      }
    }
    float *const h = block.h + begin * kPanel, *const slope =
                                                   gradients && !relu ? block.slope + begin * kPanel : nullptr;
    if (!relu) activate(s_.activation, n, h, h, slope);
    if (s_.mask.drops()) {
      const uint8_t* const bytes = block.bytes + begin * kPanel;
      apply_mask(n, bytes, s_.mask, h, h);
      if (slope) apply_mask(n, bytes, s_.mask, slope, slope);
    }
    const int here = rows_in_panel<float>(s_, block.panel);
    for (int u = begin; u < end && (here < kPanel || u >= last); ++u) {
      for (int i = u < last ? here : 0; i < kPanel; ++i) block.h[u * kPanel + i] = 0;
    }
  }

  void gradient(Block& block, int begin, int end) const {
    const bool relu = s_.activation == Activation::relu;
    const float scale = float(s_.mask.scale());
    for (int i = begin * kPanel; i < end * kPanel; i += kTile) {
      const Floats16 dh = load<Floats16>(block.da + i);
      store(block.da + i, relu ? (load<Floats16>(block.h + i) > Floats16{} ? dh * scale : Floats16{})
                               : dh * load<Floats16>(block.slope + i));
    }
    const int here = rows_in_panel<float>(s_, block.panel);
    for (int u = begin; here < kPanel && u < end; ++u) {
      for (int i = here; i < kPanel; ++i) block.da[u * kPanel + i] = 0;
    }
  }

  const ShallowShape& s_;
  const float* b_;
  Block blocks_[2];
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
    BlockMaker<F> make(s, f.b);
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
        make.each_block(weights, slab, panel, z, nullptr, [&](int64_t i, const Block& block, int begin, int end) {
          block_across<F>(block.h, begin, end, h_across.from(0, i));
        });
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
    BlockMaker<F> make(s, b);
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
          const auto finish = [&](int64_t n, const Block& block, int begin, int end) {
            if (weights_wanted) {
              block_along<F>(block.h, begin, end, w.made[buffer].h.from(2 * n, i));
              block_along<F>(block.da, begin, end, w.made[buffer].da.from(2 * n, i));
            }
            if (dz) block_across<F>(block.da, begin, end, da_across.from(0, n));
          };
          make.each_block(weights, slab, panel, w.z, &w.dy, finish);
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
