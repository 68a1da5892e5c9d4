#include "simt/tensor_core.h"

#include <string.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/bfloat16.h"

namespace simt {
namespace {

int64_t bank_conflicts = 0;

// Towards zero, as tensor cores do it (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores").
float cut_off(double x) {
  const float nearest = float(x);
  return std::abs(double(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.0f) : nearest;
}

// Lane 4 g + t holds of a (16 x k): rows g and g + 8 (registers 0, 1), the same in the upper half of k (2, 3); of
// b (k x 8): column g. A register has the 2 neighbours 2 t, 2 t + 1 of k, for tf32 the one element t.
template <Operand type>
void multiply_all(void** arguments, const Location& where) {
  constexpr int kPacked = type == Operand::tf32 ? 1 : 2, kHalf = 4 * kPacked;
  const int mutant = visit("mma", where, 2);
  float a[16][2 * kHalf], b[2 * kHalf][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Product& p = *static_cast<const Product*>(arguments[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) {
      const int from = mutant == 0 && r % 3 ? 3 - r : r;
      for (int j = 0; j < kPacked; ++j)
        a[g + 8 * (r % 2)][kHalf * (r / 2) + kPacked * t + j] = value(type, p.a[from], j);
    }
    for (int r = 0; r < 2; ++r)
      for (int j = 0; j < kPacked; ++j)
        b[kHalf * r + kPacked * t + j][g] = value(type, p.b[mutant == 1 ? 1 - r : r], j);
  }
  float d[16][8] = {};
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 2 * kHalf; ++k)
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
  for (int lane = 0; lane < kLanes; ++lane) {
    float* const to = static_cast<const Product*>(arguments[lane])->d;
    for (int i = 0; i < 4; ++i) to[i] = cut_off(double(to[i]) + d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2]);
  }
}

// Matrix m has 8 rows of 16 bytes at the addresses of lanes 8 m ...; lane 4 g + t gets elements (g, 2 t), (g, 2 t + 1),
// or transposed (2 t, g), (2 t + 1, g).
template <bool transposed>
void load_all(void** arguments, const Location& where) {
  const int mutant = visit(transposed ? "load_matrices_transposed" : "load_matrices", where, 2);
  for (int m = 0; m < 4; ++m) {
    uint16_t rows[8][8];
    int in_bank[8] = {}, worst = 0;
    for (int i = 0; i < 8; ++i) {
      const uint32_t at = static_cast<MatrixLoad*>(arguments[8 * m + i])->at;
      memcpy(rows[i], shared(at, 16, where), 16);
      worst = std::max(worst, ++in_bank[at / 16 % 8]);
    }
    bank_conflicts += worst - 1;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t low = transposed ? rows[2 * t][g] : rows[g][2 * t];
      const uint32_t high = transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      const int to = mutant == 0 && m % 3 ? 3 - m : mutant == 1 ? m ^ 1 : m;
      static_cast<MatrixLoad*>(arguments[lane])->to[to] = low | high << 16;
    }
  }
}

struct Shuffle {
  uint32_t value, result;
  int from;
};

void shuffle_all(void** arguments, const Location& where) {
  const bool keep_own = removed("shuffle", where);
  for (int lane = 0; lane < kLanes; ++lane) {
    Shuffle& s = *static_cast<Shuffle*>(arguments[lane]);
    s.result = static_cast<Shuffle*>(arguments[keep_own ? lane : s.from & 31])->value;
  }
}

}  // namespace

float value(Operand type, uint32_t word, int half) {
  const uint16_t bits = uint16_t(word >> 16 * half);
  if (type == Operand::bf16) return mimic::float_from(bits);
  if (type == Operand::fp16) return float_from_half(bits);
  const uint32_t truncated = word & 0xFFFFE000u;  // the tensor core ignores the low 13 bits
  float result;
  memcpy(&result, &truncated, 4);
  return result;
}

void meet(const char* what, const Location& where, void* argument, void (*complete)(void**, const Location&)) {
  Warp& warp = block.warp();
  if (warp.arrived && (warp.what != what || !same(warp.where, where)))
    block.fail(std::string("divergent warp: this lane is in ") + what + ", others in " + warp.what + " at " +
                   describe(warp.where),
               where);
  warp.what = what;
  warp.where = where;
  warp.argument[block.lane()] = argument;
  if (++warp.arrived < kLanes) return block.sleep(what, where);
  warp.arrived = 0;
  complete(warp.argument, where);
  block.wake_warp();
}

void load_matrices(MatrixLoad load, bool transposed, const Location& where) {
  transposed ? meet("load_matrices_transposed", where, &load, load_all<true>)
             : meet("load_matrices", where, &load, load_all<false>);
}

void multiply(Operand type, Product product, const Location& where) {
  meet("mma", where, &product,
       type == Operand::bf16   ? multiply_all<Operand::bf16>
       : type == Operand::fp16 ? multiply_all<Operand::fp16>
                               : multiply_all<Operand::tf32>);
}

uint32_t shuffle(uint32_t value, int from, const Location& where) {
  Shuffle s = {value, 0, from};
  meet("shuffle", where, &s, shuffle_all);
  return s.result;
}

uint16_t half_from(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
  bits &= 0x7FFFFFFFu;
  if (bits > 0x7F800000u) return sign | 0x7E00u;
  if (bits >= 0x477FF000u) return sign | 0x7C00u;  // rounds to 65536 or more
  if (bits < 0x38800000u) {                        // subnormal: adding 1/2 rounds to its grain of 2^-24
    float small;
    memcpy(&small, &bits, 4);
    small += 0.5f;
    memcpy(&bits, &small, 4);
    return sign | uint16_t(bits - 0x3F000000u);
  }
  return sign | uint16_t((bits - 0x38000000u + 0xFFFu + (bits >> 13 & 1u)) >> 13);
}

float float_from_half(uint16_t x) {
  const uint32_t sign = uint32_t(x & 0x8000u) << 16, rest = x & 0x7FFFu;
  if (rest < 0x400u) return (sign ? -1.0f : 1.0f) * float(rest) / float(1 << 24);
  const uint32_t bits = sign | (rest >= 0x7C00u ? 0x7F800000u | (rest & 0x3FFu) << 13 : (rest << 13) + 0x38000000u);
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

}  // namespace simt

extern "C" {
// Extra shared-memory passes of load_matrices since the last call: 0 where rows spread over all banks.
int64_t simt_bank_conflicts() { return std::exchange(simt::bank_conflicts, 0); }
uint16_t simt_half(float x) { return simt::half_from(x); }
}
