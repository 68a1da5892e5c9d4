// What a block does with a gradient in shared memory: it stores it, or uses it at once for an optimizer step.
#pragma once

#include "common/bfloat16.h"
#include "hidden/optimizer.cuh"
#include "tile/tile.cuh"

namespace mimic {

struct Gradient {
  bool needed;
  float* stored;  // (units, columns); null: a step
  int columns;    // set by the launcher
  pymimic_parameter parameter;
};

inline Gradient stored(float* gradient) { return {gradient != nullptr, gradient, 0, {}}; }

inline Gradient stepped(const pymimic_parameter* p) {
  return p ? Gradient{true, nullptr, 0, *p} : Gradient{false, nullptr, 0, {}};
}

// Element i of a working operand of 2 (bfloat16) or 4 bytes an element.
template <int bytes>
__device__ __forceinline__ void store_working(void* operand, int64_t i, float value) {
  if constexpr (bytes == 2)
    static_cast<uint16_t*>(operand)[i] = bfloat16_from(value);
  else
    static_cast<float*>(operand)[i] = value;
}

// Stores or uses a tile of units x tile_columns floats, whose rows are `stride` bytes apart. Its first element is of
// `unit` and `column`; units from end_unit on are left out. `bytes`: of an element of the working operand.
template <int bytes, int units, int tile_columns, int threads>
__device__ __forceinline__ void finish(const Gradient& to, uint32_t tile, uint32_t stride, int unit, int end_unit,
                                       int column) {
  // A thread has loads of so many rounds in flight: with two slots 256 threads have 24 KiB in flight, which is a
  // multiprocessor's share of 4 TB/s at 0.8 us of latency.
  constexpr int kAtOnce = 8;
  const pymimic_parameter& p = to.parameter;
  const Update<float> update = update_of(p);
  const int slots = to.stored ? 0 : slots_of(p);
#pragma unroll 1
  for (int first = threadIdx.x; first < units * tile_columns; first += kAtOnce * threads) {
    const auto is_inside = [&](int i) {
      return i < units * tile_columns && unit + i / tile_columns < end_unit && column + i % tile_columns < to.columns;
    };
    const auto place = [&](int i) { return int64_t(unit + i / tile_columns) * to.columns + column + i % tile_columns; };
    float value[kAtOnce], slot[2][kAtOnce];
    if (!to.stored) {
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int i = first + j * threads;
        if (!is_inside(i)) continue;
        value[j] = p.value[place(i)];
        if (slots > 0) slot[0][j] = p.slot[0][place(i)];
        if (slots > 1) slot[1][j] = p.slot[1][place(i)];
      }
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * threads;
      if (!is_inside(i)) continue;
      const float gradient =
          load_shared<float>(tile + i / tile_columns * stride + i % tile_columns * uint32_t(sizeof(float)));
      if (to.stored) {
        to.stored[place(i)] = gradient;
        continue;
      }
      step(update, slots, value[j], slot[0][j], slot[1][j], gradient);
      p.value[place(i)] = value[j];
      if (slots > 0) p.slot[0][place(i)] = slot[0][j];
      if (slots > 1) p.slot[1][place(i)] = slot[1][j];
      if (p.working)
        store_working<bytes>(p.working, int64_t(unit + i / tile_columns) * p.ld + column + i % tile_columns, value[j]);
    }
  }
}

}  // namespace mimic
