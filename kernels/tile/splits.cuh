// Into how many parts a sum is split, and how much memory the parts take.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mimic {

constexpr int kLeastSlabs = 8, kMostSplits = 128;  // slabs of a part, parts

inline int clamp_splits(int64_t splits, int64_t slabs) {
  if (splits > slabs) splits = slabs;
  return int(splits < 1 ? 1 : splits > kMostSplits ? kMostSplits : splits);
}

// How many parts, where several blocks share a multiprocessor: enough for several waves on any device. Shapes alone
// decide.
inline int choose_splits(int64_t blocks, int64_t slabs) {
  constexpr int64_t kBlocks = 512;
  if (blocks < 1) blocks = 1;
  const int64_t wanted = (kBlocks + blocks - 1) / blocks, most = slabs / kLeastSlabs;
  return clamp_splits(wanted < most ? wanted : most, slabs);
}

// How many parts, or so many as are asked for, where each block has a multiprocessor to itself: those that end first,
// and the fewest of them. A block takes the time of its slabs, and of kRest more to begin and to end. The shape and the
// number of multiprocessors decide.
inline int choose_splits(int asked, int64_t blocks, int64_t slabs, int multiprocessors) {
  constexpr int64_t kRest = 4, kMostWaves = 8;
  if (asked > 0) return clamp_splits(asked, slabs);
  const auto is_allowed = [&](int splits) {
    return splits <= kMostSplits && splits * kLeastSlabs <= slabs && splits * blocks <= kMostWaves * multiprocessors;
  };
  const auto time_of = [&](int splits) {
    const int64_t waves = (blocks * splits + multiprocessors - 1) / multiprocessors;
    return waves * ((slabs + splits - 1) / splits + kRest);
  };
  int best = 1;
  for (int splits = 2; is_allowed(splits); ++splits)
    if (time_of(splits) < time_of(best)) best = splits;
  return best;
}

// Of a workspace for the parts of `size` floats.
inline size_t split_bytes(int splits, int64_t size) {
  return splits > 1 ? size_t(splits) * size_t(size) * sizeof(float) : 0;
}

}  // namespace mimic
