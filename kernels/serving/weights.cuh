// What the serving kernels share: the types of weights, and their conversion to float.
#pragma once

#include "launch.h"
#include "tile/tile.cuh"

namespace mimic {

constexpr int kFewRows = 8;           // the most rows that one launch serves
constexpr uint32_t kChunkBytes = 16;  // of a unit's weights, that a thread loads at a time

// Each type converts a chunk of U or V, and 8 neighbouring columns of W.
struct ServedBf16 {
  static constexpr int kOfChunk = 8;
  static constexpr bool kScaled = false;
  using Columns = uint4;

  static __device__ __forceinline__ void to_floats(float (&to)[8], const uint4& v) {
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = unpack2<Bf16>(words[i]);
      to[2 * i] = two.x;
      to[2 * i + 1] = two.y;
    }
  }
};

struct ServedInt8 {
  static constexpr int kOfChunk = 16;
  static constexpr bool kScaled = true;
  using Columns = uint2;

  // The byte plus 128 becomes the last bits of 2^23. A conversion instruction would run at a quarter of the rate.
  static __device__ __forceinline__ float byte_to_float(uint32_t word, int i) {
    const uint32_t bits = 0x4B000000u | ((word ^ 0x80808080u) >> (8 * i) & 255u);
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value - 8388736.0f;
  }
  static __device__ __forceinline__ void to_floats(float (&to)[8], const uint2& v) {
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = byte_to_float(i / 4 ? v.y : v.x, i % 4);
  }
  static __device__ __forceinline__ void to_floats(float (&to)[16], const uint4& v) {
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 16; ++i) to[i] = byte_to_float(words[i / 4], i % 4);
  }
};

struct ServedFp32 {
  static constexpr int kOfChunk = 4;
  static constexpr bool kScaled = false;
  struct Columns {
    float4 low, high;
  };

  static __device__ __forceinline__ void to_floats(float (&to)[4], const uint4& v) {
    __builtin_memcpy(to, &v, sizeof(to));
  }
  static __device__ __forceinline__ void to_floats(float (&to)[8], const Columns& v) {
    __builtin_memcpy(to, &v, sizeof(to));
  }
};

// serve_bottleneck.cu: z (rows, k) of at most kFewRows rows of x, the first of which is at `x`.
cudaError_t run_bottleneck(const pymimic_serving& p, const float* x, int rows, float* z, cudaStream_t stream);

inline int served_bytes(pymimic_served weights) {
  return weights == PYMIMIC_SERVE_FP32 ? 4 : weights == PYMIMIC_SERVE_BF16 ? 2 : 1;
}

}  // namespace mimic
