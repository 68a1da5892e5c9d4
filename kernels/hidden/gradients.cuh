// What a block does with a gradient in shared memory: it stores it, or uses it at once for an optimizer step.
#pragma once

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

// Gradients in shared memory: units x columns floats, rows `stride` bytes apart. The first one is of `unit` and
// `column` of the array, whose columns are at most 256.
struct GradientTile {
  uint32_t at, stride;
  int unit, units, column, columns;
};

// `each` neighbouring elements, in one access.
template <class T, int each>
struct alignas(sizeof(T) * each) Elements {
  T at[each];
};

template <class T, int each>
__device__ __forceinline__ Elements<T, each>& elements_at(T* first) {
  return *reinterpret_cast<Elements<T, each>*>(first);
}

// Elements of a row of a working operand of 2 (bfloat16) or 4 bytes an element. With `pairs` two neighbours are in one
// row and aligned.
template <int bytes, int each>
__device__ __forceinline__ void store_working(void* operand, const int (&at)[each], const Elements<float, each>& values,
                                              bool pairs) {
  if constexpr (bytes == 4) {
#pragma unroll
    for (int c = 0; c < each; ++c) static_cast<float*>(operand)[at[c]] = values.at[c];
  } else if (each > 1 && pairs) {
#pragma unroll
    for (int c = 0; c + 1 < each; c += 2)
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(operand) + at[c]) =
          pack2<Bf16>(values.at[c], values.at[c + 1]);
  } else {
#pragma unroll
    for (int c = 0; c < each; ++c) static_cast<uint16_t*>(operand)[at[c]] = uint16_t(pack2<Bf16>(values.at[c], 0.0f));
  }
}

// Stores or uses elements [first, end) of the tile, `each` in one access; rows follow each other without their padding.
template <int bytes, int each, int threads>
__device__ __forceinline__ void finish_some(const Gradient& to, const GradientTile& tile, int first, int end) {
  // A thread has loads of 8 elements in flight: with two slots 256 threads have 24 KiB in flight, which is a
  // multiprocessor's share of 4 TB/s at 0.8 us of latency.
  constexpr int kAtOnce = 8 / each, kStep = each * threads;
  const pymimic_parameter& p = to.parameter;
  const Update<float> update = update_of(p);
  const int slots = to.stored ? 0 : slots_of(p);
  const int64_t start = int64_t(tile.unit) * to.columns + tile.column;
  float* const value = (to.stored ? to.stored : p.value) + start;
  float* const slot0 = slots > 0 ? p.slot[0] + start : nullptr;
  float* const slot1 = slots > 1 ? p.slot[1] + start : nullptr;
  const bool works = !to.stored && p.working;
  void* const working = works ? static_cast<char*>(p.working) + (tile.unit * p.ld + tile.column) * bytes : nullptr;
  const int ld = int(p.ld);
  // i / columns as a product: exact, as i columns < 2^22.
  const uint32_t reciprocal = ((1u << 22) + uint32_t(tile.columns) - 1) / uint32_t(tile.columns);
  const auto row_of = [&](int i) { return int(uint32_t(i) * reciprocal >> 22); };
#pragma unroll 1
  for (int i = first + each * int(threadIdx.x); i < end; i += kAtOnce * kStep) {
    Elements<float, each> values[kAtOnce], slot[2][kAtOnce];
    int place[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int mine = i + j * kStep < end ? i + j * kStep : i;
      place[j] = mine + row_of(mine) * (to.columns - tile.columns);
      if (!to.stored) values[j] = elements_at<float, each>(value + place[j]);
      if (slots > 0) slot[0][j] = elements_at<float, each>(slot0 + place[j]);
      if (slots > 1) slot[1][j] = elements_at<float, each>(slot1 + place[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int mine = i + j * kStep, row = row_of(mine);
      if (mine >= end) continue;
      int column = mine - row * tile.columns, working_at[each];
      uint32_t at = tile.at + row * tile.stride + column * uint32_t(sizeof(float));
      int to_working = row * ld + column;
#pragma unroll
      for (int c = 0; c < each; ++c) {
        const float gradient = load_shared<float>(at);
        if (to.stored)
          values[j].at[c] = gradient;
        else
          step(update, slots, values[j].at[c], slot[0][j].at[c], slot[1][j].at[c], gradient);
        working_at[c] = to_working;
        const bool ends = ++column == tile.columns;  // the next element is the next row's first
        at += ends ? tile.stride - (tile.columns - 1) * uint32_t(sizeof(float)) : uint32_t(sizeof(float));
        to_working += ends ? ld - tile.columns + 1 : 1;
        column = ends ? 0 : column;
      }
      elements_at<float, each>(value + place[j]) = values[j];
      if (slots > 0) elements_at<float, each>(slot0 + place[j]) = slot[0][j];
      if (slots > 1) elements_at<float, each>(slot1 + place[j]) = slot[1][j];
      if (works) store_working<bytes, each>(working, working_at, values[j], tile.columns % 2 == 0);
    }
  }
}

// Stores or uses a tile, all threads alike, in 16-byte accesses where memory allows them: where the tile has all
// columns of its rows, or rows are whole 16 bytes. `bytes`: of an element of the working operand.
template <int bytes, int threads>
__device__ __forceinline__ void finish(const Gradient& to, const GradientTile& tile) {
  const pymimic_parameter& p = to.parameter;
  const auto bits = [](const float* x) { return reinterpret_cast<uintptr_t>(x); };
  const uintptr_t pointers = to.stored ? bits(to.stored) : bits(p.value) | bits(p.slot[0]) | bits(p.slot[1]);
  const bool in_row = tile.columns == to.columns || (to.columns % 4 == 0 && tile.column % 4 == 0);
  const int all = tile.units * tile.columns, in_fours = pointers % 16 == 0 && in_row ? all / 4 * 4 : 0;
  finish_some<bytes, 4, threads>(to, tile, 0, in_fours);
  finish_some<bytes, 1, threads>(to, tile, in_fours, all);
}

}  // namespace mimic
