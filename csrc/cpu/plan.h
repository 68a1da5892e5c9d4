// How a shallow op runs. `plan_shallow` alone decides it, from the sizes; kernels take it as it is.
#pragma once

#include <stdint.h>

namespace mimic {

constexpr int64_t kFewRows = 8;  // up to as many rows, reading the weights takes longer than the products
constexpr int kMostParts = 4;

// What multiplies: vectors of the arrays' own type or pairs of bfloat16 in vectors; tiles of one or three bfloat16.
enum class Multiplier : int { vectors, pairs, tiles, tiles_x3 };

struct ShallowPlan {
  int64_t slab;           // hidden units in one partial sum of y and dz
  int64_t row_block;      // rows in one partial sum of the weights' gradients
  int parts = 1;          // of H, on tiles: each has a y or a dz of its own, and threads share them out
  int64_t k_run = 0;      // of z U^T on tiles, where k is long: steps of 32 that are summed at a time; 0: all
  bool few_rows = false;  // threads own slabs, and hidden units run along vector lanes: see serving/few_rows.h
};

struct ShallowCall {
  int64_t B, k, H, C;
  Multiplier by;
  bool float32;           // arrays and sums
  bool backward;          // or the step; else the forward pass
  bool dz;                // the backward pass makes dz
  bool saves_h, dropout;  // the forward pass keeps h, and drops units
};

// `slab` and `row_block` are those of pymimic.plan, which tiles change where k is long or rows are many.
ShallowPlan plan_shallow(const ShallowCall& call, int64_t slab, int64_t row_block);

// What the calling thread did in its last shallow op, counted as it was done: all of it, where it was the only thread.
struct ShallowRun {
  Multiplier by;
  bool few_rows;
  int64_t slabs, row_blocks, k_runs;  // row blocks and runs of k: in all slabs together
  int parts;
};
ShallowRun& shallow_run();

}  // namespace mimic
