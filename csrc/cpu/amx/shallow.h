// shallow.h on tiles of bfloat16, with one term or three (bf16x3): see amx/layouts.h. Sums are float32.
//
// H is cut into parts, by its size alone. A part has its own y and dz, to be summed in the order of parts; so a team of
// threads owns parts, and needs no other team until the end. As many teams as possible: inside one, threads share out
// rows, then units, and meet at barriers, as in shallow.h; where a team is one thread, nobody waits, and weights, h and
// da stay in its cache.
#pragma once

#include "cpu/amx/long_k.h"

namespace mimic {
namespace MIMIC_ISA {

// to[j][row] += sum over the slab's units of M[unit][j] tile[unit][row], M being turned tiles.
template <class F>
MIMIC_INLINE void add_over_units(const Slab& slab, const TileMatrix& M_turned, const TileMatrix& across,
                                 int64_t columns, float* to) {
  tile_products<typename F::Tiles, typename F::Product>(M_turned, across, steps_of(slab.units), columns, kPanel, to,
                                                        kPanel, true, true);
}

// [part][panel][column][32 rows] -> to (B, columns), parts summed in order.
inline void sum_parts(const Team& team, const ShallowShape& s, int parts, int64_t columns, float* panels_of_parts,
                      float* to) {
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), size = tiles_of(columns) * kTile * kPanel;
  for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
    float* const sum = panels_of_parts + panel * size;
    for (int part = 1; part < parts; ++part) {
      const float* const other = sum + part * panels * size;
#pragma GCC ivdep
      for (int64_t i = 0; i < columns * kPanel; ++i) sum[i] += other[i];
    }
    transpose(sum, ptrdiff_t(kPanel), columns, rows_in_panel<float>(s, panel), to + panel * kPanel * columns, columns);
  }
}

template <class F>
void shallow_forward_tiles(const ShallowForwardBf16& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), y_panel = tiles_of(s.C) * kTile * kPanel;
  const Teams teams(s, panels);
  const int64_t block_panels = long_sums(s) ? s.row_block / kPanel : panels;
  TileMatrix z, all_h;
  float* y_panels;
  TileSums<F> sums;
  TiledSlab<F> slabs[2 * kParts];
  const auto layout = [&](Arena arena) {
    z = take_tiles<F>(arena, 2 * panels, steps_of(s.k));
    all_h = take_tiles<F>(arena, 2 * teams.most_members, steps_of(s.slab));
    y_panels = arena.take<float>(teams.parts * panels * y_panel);
    sums = TileSums<F>::take(arena, s, teams, block_panels);
    for (int i = 0; i < teams.buffers; ++i) {
      slabs[i] = TiledSlab<F>::take(arena, s, {!long_sums(s), true, false, false});
    }
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  parallel(teams.most_members, [&](Team& team) {
    F::Tiles::configure();
    const Grid grid(team, teams.parts);
    const TileMatrix h_across = all_h.from(2 * team.rank, 0);
    BlockMaker<F> make(s, f.b, f.keep, {});
    Forms forms = {};
    forms.h_across = h_across;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      put_source_along<F>(f.z, s.B, s.k, panel * kPanel, true, z.from(2 * panel, 0));
      for (int part = 0; part < teams.parts; ++part) {
        float* const y = y_panels + (part * panels + panel) * y_panel;
        for (int64_t i = 0; i < y_panel; ++i) y[i] = part == 0 && i < s.C * kPanel ? f.c[i / kPanel] : 0;
      }
    }
    team.barrier();
    int64_t row_turn = 0;
    grid.each_slab(s, teams.parts, [&](int part, const Slab& slab, int64_t turn) {
      const TiledSlab<F>& weights = slabs[grid.buffer(turn)];
      const int64_t blocks = steps_of(slab.units);
      weights.fill(grid.begin(blocks), grid.end(blocks), s, slab, f.U, f.W);
      grid.barrier();
      for (int64_t first = 0; first < panels; first += block_panels, ++row_turn) {
        const int64_t here = least(panels - first, block_panels);
        sums.make(s, grid, slab, f.U, z, first, here, row_turn);
        for (int64_t i = grid.begin(here); blocks > 0 && i < grid.end(here); ++i) {
          const int64_t panel = first + i;
          make.each_block(weights, slab, panel, sums.of(s, grid, i), z, nullptr, forms);
          add_over_units<F>(slab, weights.W_turned, h_across, s.C, y_panels + (part * panels + panel) * y_panel);
        }
      }
    });
    F::Tiles::release();
    team.barrier();
    sum_parts(team, s, teams.parts, s.C, y_panels, f.y);
  });
}

// Rows of a block. With three terms h and da are three times as large, and blocks beyond some k + C rows cost more in
// cache than they save in gradients that are added to.
template <class F>
MIMIC_INLINE int64_t rows_of_block(const ShallowShape& s) {
  if (F::kTerms == 1) return s.row_block;
  const int64_t wanted = s.k + s.C < 128 ? 128 : s.k + s.C, blocks = (s.B + wanted / 2) / wanted;
  return least(steps_of(ceil_div(s.B, blocks > 1 ? blocks : 1)) * kStep, s.row_block);
}

// How many parts may have a dz of their own, so that a pass takes no more than four times B (k + C) values and 4 MiB a
// thread: tiles of z and dy are three times as many. Where k is long, a slab's weights leave less room.
inline int64_t parts_with_dz(const ShallowShape& s) {
  const int64_t room = s.B * s.C + (int64_t(long_sums(s) ? 3 : 5) << 18);
  return 4 * s.B * s.k <= room ? 4 : 2 * s.B * s.k <= room ? 2 : 1;
}

// h and da of a slab and a block of rows, and sums of da over the rows of each panel, [panel][unit].
struct MadeTiles {
  TileMatrix h, da;
  float* db;
};

// See shallow_backward_into.
template <class F>
void shallow_backward_tiles_into(const ShallowBackwardBf16& f, const Gradients<float>& out) {
  const ShallowShape& s = f.shape;
  float* const dz = f.dz;
  const bool weights_wanted = out.any(), make_h = !f.kept.any(), long_made = make_h && long_sums(s);
  const int64_t panels = ceil_div(s.B, int64_t(kPanel)), block_panels = rows_of_block<F>(s) / kPanel;
  const int64_t dz_panel = tiles_of(s.k) * kTile * kPanel, slab_blocks = steps_of(s.slab), none = 0;
  const Teams teams(s, least(panels, block_panels), dz ? parts_with_dz(s) : int64_t(kParts));
  struct {
    TileMatrix z, dy, z_steps, dy_steps, all_da;
    float* dz;
    MadeTiles made[2 * kParts];  // one a team where sums are made first: they wait before h and da are written again
    TileSums<F> sums;
    TiledSlab<F> slab[kParts];  // one a team: nobody reads weights past the barrier behind a block of rows
  } w = {};
  Gradients<float> outs[kParts] = {out, out, out, out};
  const auto layout = [&](Arena arena) {
    w.z = take_tiles<F>(arena, make_h ? 2 * panels : none, steps_of(s.k));
    w.dy = take_tiles<F>(arena, 2 * panels, steps_of(s.C));
    w.z_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.k) : none, panels);
    w.dy_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.C) : none, panels);
    w.all_da = take_tiles<F>(arena, dz ? 2 * teams.most_members : none, slab_blocks);
    w.dz = arena.take<float>(dz ? teams.parts * panels * dz_panel : none);
    if (make_h) w.sums = TileSums<F>::take(arena, s, teams, block_panels);
    for (int i = 0; i < (long_made ? teams.most_teams() : teams.buffers); ++i) {
      w.made[i].h = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
      w.made[i].da = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
      w.made[i].db = arena.take<float>(weights_wanted ? block_panels * slab_blocks * kStep : none);
    }
    for (int i = 0; i < teams.most_teams(); ++i) {
      w.slab[i] = TiledSlab<F>::take(arena, s, {make_h && !long_sums(s), false, true, dz != nullptr});
      outs[i].reserve(arena);
    }
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  parallel(teams.most_members, [&](Team& team) {
    F::Tiles::configure();
    const Grid grid(team, teams.parts);
    const Gradients<float>& mine = outs[grid.team];
    const TileMatrix da_across = w.all_da.from(2 * team.rank, 0);
    BlockMaker<F> make(s, f.b, {}, f.kept);
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      const int64_t row = panel * kPanel;
      if (make_h) put_source_along<F>(f.z, s.B, s.k, row, true, w.z.from(2 * panel, 0));
      put_source_along<F>(f.dy, s.B, s.C, row, true, w.dy.from(2 * panel, 0));
      for (int part = 0; dz && part < teams.parts; ++part) {
        __builtin_memset(w.dz + (part * panels + panel) * dz_panel, 0, size_t(dz_panel) * sizeof(float));
      }
      if (!weights_wanted) continue;
      put_source_across<F>(f.z, s.B, s.k, row, F::kApart, false, w.z_steps.from(0, panel));
      put_source_across<F>(f.dy, s.B, s.C, row, F::kApart, false, w.dy_steps.from(0, panel));
    }
    team.barrier();
    int64_t row_turn = 0;
    grid.each_slab(s, teams.parts, [&](int part, const Slab& slab, int64_t) {
      const TiledSlab<F>& weights = w.slab[grid.team];
      const int64_t blocks = steps_of(slab.units);
      weights.fill(grid.begin(blocks), grid.end(blocks), s, slab, f.U, f.W);
      grid.barrier();
      const int64_t my_units = least(kStep * grid.begin(blocks), slab.units),
                    my_end = least(kStep * grid.end(blocks), slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, ++row_turn) {
        const int64_t here = least(panels - first, block_panels);
        const MadeTiles& made = w.made[long_made ? grid.team : grid.buffer(row_turn)];
        w.sums.make(s, grid, slab, f.U, w.z, first, here, row_turn);
        for (int64_t i = grid.begin(here); blocks > 0 && i < grid.end(here); ++i) {
          const int64_t panel = first + i;
          Forms forms = {};
          if (weights_wanted) {
            forms.h_along = made.h.from(0, i), forms.da_along = made.da.from(0, i);
            forms.db = made.db + i * slab_blocks * kStep;
          }
          if (dz) forms.da_across = da_across;
          make.each_block(weights, slab, panel, w.sums.of(s, grid, i), w.z, &w.dy, forms);
          if (dz) {
            add_over_units<F>(slab, weights.U_turned, da_across, s.k, w.dz + (part * panels + panel) * dz_panel);
          }
        }
        grid.barrier();
        if (!weights_wanted || my_units == my_end) continue;

        const auto gradient = [&](auto terms, const TileMatrix& tiles, const TileMatrix& right, int64_t columns,
                                  float* to) {
          if (!to) return;
          tile_products<typename F::Tiles, decltype(terms)>(tiles.from(my_units / kTile, 0), right.from(0, first), here,
                                                            my_end - my_units, columns, to + my_units * columns,
                                                            columns, first != 0, false);
        };
        const auto all = typename F::Product();
        gradient(all, made.da, w.z_steps, s.k, mine.dU(slab));
        make.rounded_h() ? gradient(Terms<1, F::kTerms>(), made.h, w.dy_steps, s.C, mine.dW(slab))
                         : gradient(all, made.h, w.dy_steps, s.C, mine.dW(slab));
        float* const db = mine.db(slab);
        for (int64_t i = 0; db && i < here; ++i) {
          const float* const sums = made.db + i * slab_blocks * kStep;
          for (int64_t u = my_units; u < my_end; ++u) db[u] = first + i == 0 ? sums[u] : db[u] + sums[u];
        }
        if (first + here == panels) mine.complete(slab, my_units, my_end);
      }
    });
    F::Tiles::release();
    team.barrier();
    if (dz) sum_parts(team, s, teams.parts, s.k, w.dz, dz);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
