// Who does what: teams of threads own parts of H.
#pragma once

#include "cpu/slab.h"

namespace mimic {
namespace MIMIC_ISA {

// Where a member stands among the teams, and its share of what its own team does.
struct Seat : Share {
  int teams, team;
  Team& all;

  Seat(Team& whole, int parts) : teams(common_divisor(whole.size, parts)), all(whole) {
    size = whole.size / teams, rank = whole.rank % size, team = whole.rank / size;
  }
  static int common_divisor(int a, int b) { return b == 0 ? a : common_divisor(b, a % b); }

  void barrier() const {
    if (size > 1) all.barrier();
  }
  // Which of a team's two buffers to use; a team of one thread never waits, and needs only one.
  int buffer(int64_t turn) const { return size > 1 ? 2 * team + int(turn & 1) : team; }

  // f(part, slab, turn) on all slabs of the parts that this team owns. Teams take the same number of turns, some of
  // them with a slab of no units, so that barriers, where there are any, are met by all.
  template <class F>
  void each_slab(const ShallowShape& s, F f) const {
    const int parts = s.parts;
    const int64_t slabs = ceil_div(s.H, s.slab), most = ceil_div(slabs, int64_t(parts));
    int64_t turn = 0;
    for (int part = team; part < parts; part += teams) {
      const int64_t first = slabs * part / parts, last = slabs * (part + 1) / parts;
      for (int64_t i = 0; i < most; ++i, ++turn) {
        f(part, first + i < last ? slab_at(s, (first + i) * s.slab) : Slab{0, 0}, turn);
      }
    }
  }
};

// How many threads and teams there may be at most, and buffers for them, where `most_rows` panels are shared out.
struct Workspaces {
  int most_members, most_teams, buffers;

  Workspaces(const ShallowShape& s, int64_t most_rows)
      : most_members(mimic::MIMIC_ISA::most_members(s, s.parts * most_rows)),
        most_teams(least(s.parts, most_members)),
        buffers(least(2 * s.parts, most_members > 2 ? most_members : 2)) {}
};

}  // namespace MIMIC_ISA
}  // namespace mimic
