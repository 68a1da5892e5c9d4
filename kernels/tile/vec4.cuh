// Quads: four neighbouring elements, in one access where their address allows. And teams of threads that share a row.
#pragma once

#include <stdint.h>

#include "launch.h"
#include "tile/launch.cuh"
#include "tile/tile.cuh"

namespace mimic {

constexpr int kQuad = 4, kTeamThreads = 256;

struct alignas(16) Quad {
  float at[kQuad];
};

__device__ __forceinline__ bool is_aligned(const void* p, unsigned bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// The first `count` of four elements; zeros beyond them.
__device__ __forceinline__ Quad load_quad(const float* from, int64_t count) {
  Quad q = {};
  if (count >= kQuad && is_aligned(from, 16)) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    q = {{v.x, v.y, v.z, v.w}};
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      if (i < count) q.at[i] = from[i];
  }
  return q;
}

__device__ __forceinline__ void store_quad(float* to, const Quad& q, int64_t count) {
  if (count >= kQuad && is_aligned(to, 16)) {
    store_global(to, {q.at[0], q.at[1], q.at[2], q.at[3]});
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      if (i < count) to[i] = q.at[i];
  }
}

// Two elements of a 16-bit type that is known when the kernel runs.
__device__ __forceinline__ float2 from_16bit(pymimic_precision precision, uint32_t two) {
  return precision == PYMIMIC_BF16 ? unpack2<Bf16>(two) : unpack2<Fp16>(two);
}

__device__ __forceinline__ uint32_t to_16bit(pymimic_precision precision, float low, float high) {
  return precision == PYMIMIC_BF16 ? pack2<Bf16>(low, high) : pack2<Fp16>(low, high);
}

// Four of them, from an address that is a multiple of 8 bytes.
__device__ __forceinline__ Quad load_quad(const uint16_t* from, pymimic_precision precision, int64_t count) {
  uint2 words = {};
  if (count >= kQuad) {
    words = *reinterpret_cast<const uint2*>(from);
  } else {
#pragma unroll
    for (int i = 0; i < kQuad - 1; ++i)
      if (i < count) (i / 2 ? words.y : words.x) |= uint32_t(from[i]) << (16 * (i % 2));
  }
  const float2 low = from_16bit(precision, words.x), high = from_16bit(precision, words.y);
  return {{low.x, low.y, high.x, high.y}};
}

__device__ __forceinline__ void store_quad(uint16_t* to, pymimic_precision precision, const Quad& q, int64_t count) {
  const uint2 words = {to_16bit(precision, q.at[0], q.at[1]), to_16bit(precision, q.at[2], q.at[3])};
  if (count >= kQuad) {
    *reinterpret_cast<uint2*>(to) = words;
  } else {
#pragma unroll
    for (int i = 0; i < kQuad - 1; ++i)
      if (i < count) to[i] = uint16_t((i / 2 ? words.y : words.x) >> (16 * (i % 2)));
  }
}

// A block of kTeamThreads as teams of a power of two threads. A team takes a row; short rows leave few threads idle.
struct RowTeams {
  int size;

  __device__ int member() const { return int(threadIdx.x) & (size - 1); }
  __device__ int team() const { return int(threadIdx.x) / size; }
  __host__ __device__ int count() const { return kTeamThreads / size; }
};

inline RowTeams teams_for(int64_t items_of_a_row, int most) {
  int size = 1;
  while (size < most && size < items_of_a_row) size *= 2;
  return {size};
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks along one dimension of a grid; a block loops, with the grid's size as its step.
inline unsigned blocks_for(int64_t items, int64_t items_of_a_block, int64_t most) {
  const int64_t blocks = ceil_div(items, items_of_a_block);
  return unsigned(blocks < most ? blocks : most);
}

}  // namespace mimic
