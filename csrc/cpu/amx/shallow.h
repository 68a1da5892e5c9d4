// shallow.h on tiles of bfloat16, with one term or three (bf16x3): see amx/layouts.h. Sums are float32.
//
// H is cut into parts, by its size alone. A part has its own y and dz, to be summed in the order of parts; so a team of
// threads owns parts, and needs no other team until the end. As many teams as possible: inside one, threads share out
// rows, then units, and meet at barriers, as in shallow.h; where a team is one thread, nobody waits, and weights, h and
// da stay in its cache.
#pragma once

#include "cpu/amx/long_k.h"
#include "cpu/shallow.h"

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
  const int64_t panels = panels_of(s), size = tiles_of(columns) * kTile * kPanel;
  for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
    float* const sum = panels_of_parts + panel * size;
    for (int part = 1; part < parts; ++part) {
      const float* const other = sum + part * panels * size;
#pragma GCC ivdep
      for (int64_t i = 0; i < columns * kPanel; ++i) sum[i] += other[i];
    }
    transpose(sum, ptrdiff_t(kPanel), columns, rows_in_panel(s, panel), to + panel * kPanel * columns, columns);
  }
}

template <class F>
struct ByTiles {
  using T = float;
  using M = Source;

  static void forward(const ShallowForward<T, M>& f);
  static void backward(const ShallowBackward<T, M>& f, const Gradients<T>& out);  // see ByMicrokernel
};

template <class F>
void ByTiles<F>::forward(const ShallowForward<T, M>& f) {
  const ShallowShape& s = f.shape;
  const int64_t panels = panels_of(s), y_panel = tiles_of(s.C) * kTile * kPanel;
  const Workspaces teams(s, panels);
  const int64_t block_panels = s.k_run ? s.row_block / kPanel : panels;
  TileMatrix z, all_h;
  float* y_panels;
  TileSums<F> sums;
  TiledSlab<F> slabs[2 * kMostParts];
  const auto layout = [&](Arena arena) {
    z = take_tiles<F>(arena, 2 * panels, steps_of(s.k));
    all_h = take_tiles<F>(arena, 2 * teams.most_members, steps_of(s.slab));
    y_panels = arena.take<float>(s.parts * panels * y_panel);
    sums = TileSums<F>::take(arena, s, teams, block_panels);
    for (int i = 0; i < teams.buffers; ++i) {
      slabs[i] = TiledSlab<F>::take(arena, s, {!s.k_run, true, false, false});
    }
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = F::kTerms == 3 ? Multiplier::tiles_x3 : Multiplier::tiles;
  shallow_run().parts = s.parts;
  parallel(teams.most_members, [&](Team& team) {
    F::Tiles::configure();
    const Seat seat(team, s.parts);
    const TileMatrix h_across = all_h.from(2 * team.rank, 0);
    BlockMaker<F> make(s, f.b, f.save, {});
    Forms forms = {};
    forms.h_across = h_across;
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      put_source_along<F>(f.z, s.B, s.k, panel * kPanel, true, z.from(2 * panel, 0));
      for (int part = 0; part < s.parts; ++part) {
        float* const y = y_panels + (part * panels + panel) * y_panel;
        for (int64_t i = 0; i < y_panel; ++i) y[i] = part == 0 && i < s.C * kPanel ? f.c[i / kPanel] : 0;
      }
    }
    team.barrier();
    int64_t row_turn = 0;
    seat.each_slab(s, [&](int part, const Slab& slab, int64_t turn) {
      const TiledSlab<F>& weights = slabs[seat.buffer(turn)];
      const int64_t blocks = steps_of(slab.units);
      count_slab(team, slab.units);
      weights.fill(seat.begin(blocks), seat.end(blocks), s, slab, f.U, f.W);
      seat.barrier();
      for (int64_t first = 0; first < panels; first += block_panels, ++row_turn) {
        team.look();
        const int64_t here = least(panels - first, block_panels);
        sums.make(s, seat, slab, f.U, z, first, here, row_turn);
        for (int64_t i = seat.begin(here); blocks > 0 && i < seat.end(here); ++i) {
          const int64_t panel = first + i;
          make.each_block(weights, slab, panel, sums.of(s, seat, i), z, nullptr, forms);
          add_over_units<F>(slab, weights.W_turned, h_across, s.C, y_panels + (part * panels + panel) * y_panel);
        }
      }
    });
    F::Tiles::release();
    team.barrier();
    sum_parts(team, s, s.parts, s.C, y_panels, f.y);
  });
}

// h and da of a slab and a block of rows, and sums of da over the rows of each panel, [panel][unit].
struct MadeTiles {
  TileMatrix h, da;
  float* db;
};

template <class F>
void ByTiles<F>::backward(const ShallowBackward<T, M>& f, const Gradients<float>& out) {
  const ShallowShape& s = f.shape;
  float* const dz = f.dz;
  if (f.dc) sum_rows(f.dy, s.B, s.C, f.dc);
  const bool weights_wanted = out.any(), make_h = !f.saved.any(), long_made = make_h && s.k_run;
  const int64_t panels = panels_of(s), block_panels = s.row_block / kPanel;
  const int64_t dz_panel = tiles_of(s.k) * kTile * kPanel, slab_blocks = steps_of(s.slab), none = 0;
  const Workspaces teams(s, least(panels, block_panels));
  struct {
    TileMatrix z, dy, z_steps, dy_steps, all_da;
    float* dz;
    MadeTiles made[2 * kMostParts];  // one a team where k is long: its barriers come before h and da are written again
    TileSums<F> sums;
    TiledSlab<F> slab[kMostParts];  // one a team: nobody reads weights after the barrier that ends a block of rows
  } w = {};
  Gradients<float> outs[kMostParts] = {out, out, out, out};
  const auto layout = [&](Arena arena) {
    w.z = take_tiles<F>(arena, make_h ? 2 * panels : none, steps_of(s.k));
    w.dy = take_tiles<F>(arena, 2 * panels, steps_of(s.C));
    w.z_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.k) : none, panels);
    w.dy_steps = take_tiles<F>(arena, weights_wanted ? tiles_of(s.C) : none, panels);
    w.all_da = take_tiles<F>(arena, dz ? 2 * teams.most_members : none, slab_blocks);
    w.dz = arena.take<float>(dz ? s.parts * panels * dz_panel : none);
    if (make_h) w.sums = TileSums<F>::take(arena, s, teams, block_panels);
    for (int i = 0; i < (long_made ? teams.most_teams : teams.buffers); ++i) {
      w.made[i].h = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
      w.made[i].da = take_tiles<F>(arena, weights_wanted ? 2 * slab_blocks : none, block_panels);
      w.made[i].db = arena.take<float>(weights_wanted ? block_panels * slab_blocks * kStep : none);
    }
    for (int i = 0; i < teams.most_teams; ++i) {
      w.slab[i] = TiledSlab<F>::take(arena, s, {make_h && !s.k_run, false, true, dz != nullptr});
      outs[i].reserve(arena);
    }
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  shallow_run().by = F::kTerms == 3 ? Multiplier::tiles_x3 : Multiplier::tiles;
  shallow_run().parts = s.parts;
  parallel(teams.most_members, [&](Team& team) {
    F::Tiles::configure();
    const Seat seat(team, s.parts);
    const Gradients<float>& mine = outs[seat.team];
    const TileMatrix da_across = w.all_da.from(2 * team.rank, 0);
    BlockMaker<F> make(s, f.b, {}, f.saved);
    for (int64_t panel = team.begin(panels); panel < team.end(panels); ++panel) {
      const int64_t row = panel * kPanel;
      if (make_h) put_source_along<F>(f.z, s.B, s.k, row, true, w.z.from(2 * panel, 0));
      put_source_along<F>(f.dy, s.B, s.C, row, true, w.dy.from(2 * panel, 0));
      for (int part = 0; dz && part < s.parts; ++part) {
        __builtin_memset(w.dz + (part * panels + panel) * dz_panel, 0, size_t(dz_panel) * sizeof(float));
      }
      if (!weights_wanted) continue;
      put_source_across<F>(f.z, s.B, s.k, row, F::kApart, false, w.z_steps.from(0, panel));
      put_source_across<F>(f.dy, s.B, s.C, row, F::kApart, false, w.dy_steps.from(0, panel));
    }
    team.barrier();
    int64_t row_turn = 0;
    seat.each_slab(s, [&](int part, const Slab& slab, int64_t) {
      const TiledSlab<F>& weights = w.slab[seat.team];
      const int64_t blocks = steps_of(slab.units);
      count_slab(team, slab.units);
      weights.fill(seat.begin(blocks), seat.end(blocks), s, slab, f.U, f.W);
      seat.barrier();
      const int64_t my_units = least(kStep * seat.begin(blocks), slab.units),
                    my_end = least(kStep * seat.end(blocks), slab.units);
      for (int64_t first = 0; first < panels; first += block_panels, ++row_turn) {
        team.look();
        const int64_t here = least(panels - first, block_panels);
        if (blocks > 0) count_row_block(team);
        const MadeTiles& made = w.made[long_made ? seat.team : seat.buffer(row_turn)];
        w.sums.make(s, seat, slab, f.U, w.z, first, here, row_turn);
        for (int64_t i = seat.begin(here); blocks > 0 && i < seat.end(here); ++i) {
          const int64_t panel = first + i;
          Forms forms = {};
          if (weights_wanted) {
            forms.h_along = made.h.from(0, i), forms.da_along = made.da.from(0, i);
            forms.db = made.db + i * slab_blocks * kStep;
          }
          if (dz) forms.da_across = da_across;
          make.each_block(weights, slab, panel, w.sums.of(s, seat, i), w.z, &w.dy, forms);
          if (dz) {
            add_over_units<F>(slab, weights.U_turned, da_across, s.k, w.dz + (part * panels + panel) * dz_panel);
          }
        }
        seat.barrier();
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
    if (dz) sum_parts(team, s, s.parts, s.k, w.dz, dz);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
