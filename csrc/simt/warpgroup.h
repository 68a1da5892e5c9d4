// Models of wgmma. A warp's products wait in a queue; they are made in order, at random moments, at the latest when the
// warp waits for them. Until then their sums are NaNs.
#pragma once

#include "simt/tensor_core.h"

namespace simt {

// d (64 x 8 tiles) = or += a (64 x 16) b (16 x 8 tiles). Descriptors are those of the hardware.
struct WideProduct {
  Operand type;
  int tiles;
  float* d;           // 4 tiles
  const uint32_t* a;  // 4, or null where a_descriptor says where a is: along the rows of a piece
  uint64_t a_descriptor, b_descriptor;
  bool b_down;  // b's 16 rows are rows of a piece; otherwise columns
  bool add;
};

void wgmma(const WideProduct& product, const char* what, const Location& where);
void wgmma_fence(const Location& where);
void wgmma_commit(const Location& where);
void wgmma_wait(int still_under_way, const Location& where);

}  // namespace simt
