// What the machine can do at most: a loop that does nothing but multiply and add, and one that does nothing but read.
// benchmarks/ceilings.py times them. Results go to memory, so that no compiler leaves the work out.
#pragma once

#include "cpu/amx/tiles.h"
#include "cpu/isa/parts.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kBetweenLooks = 1 << 20;  // steps

// `step` on each of the microkernel's accumulators in turn, `steps` times, on every thread: as many independent chains
// hide the latency, and none leaves its register. Returns how often `step` was done.
template <class T, class Step>
double run_chains(int64_t steps, Step step) {
  const int members = num_threads();
  T* const sums = static_cast<T*>(scratch(size_t(members) * sizeof(T)));
  double done = 0;
  parallel(members, [&](Team& team) {
    Vector<T> chain[kTileRows][kVectorsPerTile];
    MIMIC_UNROLL for (int i = 0; i < kTileRows; ++i) {
      MIMIC_UNROLL for (int j = 0; j < kVectorsPerTile; ++j) chain[i][j] = Vector<T>{} + T(i * kVectorsPerTile + j);
    }
    for (int64_t s = 0; s < steps; ++s) {
      if (s % kBetweenLooks == 0) team.look();
      MIMIC_UNROLL for (int i = 0; i < kTileRows; ++i) {
        MIMIC_UNROLL for (int j = 0; j < kVectorsPerTile; ++j) step(chain[i][j]);
      }
    }
    Vector<T> total = {};
    MIMIC_UNROLL for (int i = 0; i < kTileRows; ++i) {
      MIMIC_UNROLL for (int j = 0; j < kVectorsPerTile; ++j) total += chain[i][j];
    }
    T sum = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) sum += total[lane];
    sums[team.rank] = sum;
    if (team.rank == 0) done = double(steps) * kTileRows * kVectorsPerTile * team.size;
  });
  return done;
}

// Multiplications and additions done; value = value * factor + term.
template <class T>
double multiply_adds(int64_t steps, T factor, T term) {
  return 2 * kLanes<T> * run_chains<T>(steps, [=](Vector<T>& value) { value = value * factor + term; });
}

#if defined(MIMIC_X86) && defined(__AVX512F__)
// The same for bfloat16 with sums in float32, by vdpbf16ps.
double pair_multiply_adds(int64_t steps) {
  const Vector<uint32_t> ones = Vector<uint32_t>{} + 0x3F803F80u,
                         signs = Vector<uint32_t>{} + 0xBF803F80u;  // (1, 1), (1, -1)
  return 4 * kLanes<float> * run_chains<float>(steps, [=](Vector<float>& value) {
           asm("vdpbf16ps %2, %1, %0" : "+v"(value) : "v"(ones), "v"(signs));
         });
}

// And by tiles: four sums, of products of zeros.
double tile_multiply_adds(int64_t steps) {
  const int members = num_threads();
  uint32_t* const zeros = static_cast<uint32_t*>(scratch(sizeof(uint32_t) * kTileWords));
  __builtin_memset(zeros, 0, sizeof(uint32_t) * kTileWords);
  double done = 0;
  parallel(members, [&](Team& team) {
    AmxTiles::configure();
    TileBlock<AmxTiles, 2, 2> block;
    const TileMatrix both = {zeros, 0, 0};
    block.zero(), block.load_A(both, 0, 0), block.load_B(both, 0, 0);
    for (int64_t s = 0; s < steps; ++s) {
      if (s % kBetweenLooks == 0) team.look();
      block.multiply_add();
    }
    AmxTiles::release();
    if (team.rank == 0) done = double(steps) * 4 * 2 * kTile * kTile * kStep * team.size;
  });
  return done;
}
#endif

// The sum of an array, every thread reading its own part in kStreams runs at once.
template <class T>
T sum_all(int64_t size, const T* x) {
  constexpr int kStreams = 4, kVectors = 4, kAtOnce = kVectors * kLanes<T>;
  const int members = num_threads();
  T* const sums = static_cast<T*>(scratch(size_t(members) * sizeof(T)));
  int used = 1;
  parallel(members, [&](Team& team) {
    const T* const from = x + team.begin(size);
    const int64_t part = team.end(size) - team.begin(size), run = part / (kStreams * kAtOnce) * kAtOnce;
    Vector<T> total[kStreams] = {};
    for (int64_t i = 0; i < run; i += kAtOnce) {
      MIMIC_UNROLL for (int s = 0; s < kStreams; ++s) {
        MIMIC_UNROLL for (int j = 0; j < kVectors; ++j) total[s] += load<Vector<T>>(from + s * run + i + j * kLanes<T>);
      }
    }
    T sum = 0;
    for (int64_t i = kStreams * run; i < part; ++i) sum += from[i];
    for (int s = 0; s < kStreams; ++s) {
      for (int lane = 0; lane < kLanes<T>; ++lane) sum += total[s][lane];
    }
    sums[team.rank] = sum;
    if (team.rank == 0) used = team.size;
  });
  T sum = 0;
  for (int i = 0; i < used; ++i) sum += sums[i];
  return sum;
}

}  // namespace MIMIC_ISA
}  // namespace mimic
