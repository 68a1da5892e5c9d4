// Into how many parts a sum is split, and how much memory the parts take.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mimic {

// How many parts: enough blocks for several waves on any device, and no part shorter than 8 slabs. Shapes alone decide.
inline int choose_splits(int asked, int64_t blocks, int64_t slabs) {
  constexpr int64_t kBlocks = 512, kSlabs = 8, kMost = 128;
  if (blocks < 1) blocks = 1;
  int64_t splits = asked > 0 ? asked : (kBlocks + blocks - 1) / blocks;
  if (asked <= 0 && splits > slabs / kSlabs) splits = slabs / kSlabs;
  if (splits > slabs) splits = slabs;
  return int(splits < 1 ? 1 : splits > kMost ? kMost : splits);
}

// Of a workspace for the parts of `size` floats.
inline size_t split_bytes(int splits, int64_t size) {
  return splits > 1 ? size_t(splits) * size_t(size) * sizeof(float) : 0;
}

}  // namespace mimic
