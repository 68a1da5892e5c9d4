// The products z U^T where k is long. With a slab's weights whole, in cache, that slab would be so small that z had to
// be read too often; so k is cut into runs, and sums of the slab's units wait until the last one is done.
#pragma once

#include "cpu/amx/blocks.h"
#include "cpu/amx/teams.h"

namespace mimic {
namespace MIMIC_ISA {

template <class F>
struct TileSums {
  TileMatrix U[2 * kMostParts];  // a run of a slab: see Seat::buffer
  float* sums;                   // [team][panel][block of units][32 units][32 rows]
  int64_t panels;                // of a block of rows

  static TileSums take(Arena& arena, const ShallowShape& s, const Workspaces& teams, int64_t panels) {
    TileSums taken = {};
    taken.panels = panels;
    if (!s.k_run) return taken;
    for (int i = 0; i < teams.buffers; ++i) taken.U[i] = take_tiles<F>(arena, 2 * steps_of(s.slab), s.k_run);
    taken.sums = arena.take<float>(teams.most_teams * panels * steps_of(s.slab) * kStep * kPanel);
    return taken;
  }

  // Those of one panel of the block, or null where they are not made here.
  float* of(const ShallowShape& s, const Seat& seat, int64_t panel) const {
    return sums ? sums + (seat.team * panels + panel) * steps_of(s.slab) * kStep * kPanel : nullptr;
  }

  // Makes those of this member's share of `here` panels from `first` on. `turn` counts a team's calls.
  void make(const ShallowShape& s, const Seat& seat, const Slab& slab, const Source& U_rows, const TileMatrix& z,
            int64_t first, int64_t here, int64_t turn) const {
    if (!sums) return;
    const int64_t blocks = steps_of(slab.units), all = steps_of(s.k), runs = ceil_div(all, s.k_run);
    if (seat.all.rank == 0 && blocks > 0) shallow_run().k_runs += runs;
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t step = run * s.k_run, steps = least(all - step, s.k_run);
      const TileMatrix& weights = U[seat.buffer(turn * runs + run)];
      for (int64_t i = seat.begin(blocks); i < seat.end(blocks); ++i) {
        put_source_along<F>(U_rows, s.H, s.k, slab.begin + i * kStep, step * kStep, steps * kStep, false,
                            weights.from(2 * i, 0));
      }
      seat.barrier();
      for (int64_t panel = seat.begin(here); panel < seat.end(here); ++panel) {
        for (int64_t i = 0; i < blocks; ++i) {
          tile_product<typename F::Tiles, typename F::Product, 2, 2>(
              weights.from(2 * i, 0), z.from(2 * (first + panel), step), steps, of(s, seat, panel) + i * kStep * kPanel,
              kPanel, run > 0);
        }
      }
    }
  }
};

}  // namespace MIMIC_ISA
}  // namespace mimic
