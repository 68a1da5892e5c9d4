// Models of the warp-wide instructions: all 32 lanes meet, the last one computes for all.
#pragma once

#include "simt/block.h"

namespace simt {

enum class Operand { bf16, fp16, tf32 };

// Waits for the other lanes; the last one calls complete(the 32 arguments).
void meet(const char* what, const Location& where, void* argument, void (*complete)(void**, const Location&));

struct MatrixLoad {
  uint32_t at;
  uint32_t* to;  // 4 registers
};
void load_matrices(MatrixLoad load, bool transposed, const Location& where);

// d += a b, 16 x 8 x (16, or 8 for tf32).
struct Product {
  float* d;           // 4
  const uint32_t* a;  // 4
  uint32_t b[2];
};
void multiply(Operand type, Product product, const Location& where);

uint32_t shuffle(uint32_t value, int from, const Location& where);

// The 16-bit element in this half of a word, or with tf32 the whole word.
float value(Operand type, uint32_t word, int half);

uint16_t half_from(float x);
float float_from_half(uint16_t x);

}  // namespace simt
