// The functions that kernels are written with. Inline PTX is in them alone, and each has a model on the host
// (csrc/simt/tile.h). An address in shared memory is an offset in bytes from the start of the block's dynamic memory.
#pragma once

#include <stdint.h>

#ifdef MIMIC_SIMT
#include "simt/tile.h"
#else

namespace mimic {

// For sm_90a the kernels of the files *_sm90a.cu make the products of 16-bit operands, for other targets the kernels of
// *_sm80.cu: each chip gets the code of one of them.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool kForSm80 = false, kForSm90a = true;
#else
constexpr bool kForSm80 = true, kForSm90a = false;
#endif

__device__ __forceinline__ void not_for_this_chip() { __trap(); }

extern __shared__ __align__(1024) unsigned char shared_bytes[];

template <class T>
__device__ __forceinline__ T load_shared(uint32_t at) {
  return *reinterpret_cast<const T*>(shared_bytes + at);
}

template <class T>
__device__ __forceinline__ void store_shared(uint32_t at, T value) {
  *reinterpret_cast<T*>(shared_bytes + at) = value;
}

__device__ __forceinline__ uint32_t shared_address(uint32_t at) {
  return uint32_t(__cvta_generic_to_shared(shared_bytes)) + at;
}

// threadIdx.x, read again: what is computed from it need not stay in registers over a loop, where registers are scarce.
__device__ __forceinline__ int fresh_thread() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// `value` of another lane. All 32 lanes call it.
__device__ __forceinline__ uint32_t shuffle(uint32_t value, int lane) { return __shfl_sync(~0u, value, lane); }
__device__ __forceinline__ uint32_t shuffle_xor(uint32_t value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
__device__ __forceinline__ float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

// One 16-byte store. Beside a branch with narrower stores, the compiler would split a plain one.
__device__ __forceinline__ void store_global(float* to, float4 v) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
}

// Copies 4, 8 or 16 aligned bytes from global to shared memory asynchronously; zeros where not valid. The thread may
// read them after the wait for the copy's group, other threads after a barrier that follows.
template <int bytes>
__device__ __forceinline__ void copy_async(uint32_t at, const void* from, bool valid) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  const int size = valid ? bytes : 0;
  if constexpr (bytes == 16)  // bypasses L1: nothing is read from it twice
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(at)), "l"(from),
                 "r"(size)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(at)), "l"(from), "n"(bytes),
                 "r"(size)
                 : "memory");
}

// Ends a group of copies. A group may be empty.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups but the last `still_under_way`.
template <int still_under_way>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(still_under_way) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements. Lanes 8 m .. 8 m + 7 give the addresses of the rows of matrix m, of 16 bytes
// each. Lane 4 g + t gets elements (g, 2 t) and (g, 2 t + 1) of each matrix, or transposed (2 t, g) and (2 t + 1, g).
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(at))
               : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(at))
               : "memory");
}

// 2^x within 2^-22 of it; zero instead of subnormal numbers.
__device__ __forceinline__ float exp2_approx(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// max(x, 0) in one instruction; NaN stays NaN.
__device__ __forceinline__ float relu(float x) {
  float y;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
  return y;
}

// Types of 16-bit elements.
struct Bf16 {};
struct Fp16 {};

// Rounded to nearest even, `low` in the low half.
template <class Element>
__device__ __forceinline__ uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack2<Bf16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
template <>
__device__ __forceinline__ uint32_t pack2<Fp16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// The same of relu(low) and relu(high), in one instruction.
template <class Element>
__device__ __forceinline__ uint32_t pack2_relu(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack2_relu<Bf16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
template <>
__device__ __forceinline__ uint32_t pack2_relu<Fp16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <class Element>
__device__ __forceinline__ float2 unpack2(uint32_t packed);
template <>
__device__ __forceinline__ float2 unpack2<Bf16>(uint32_t packed) {
  return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xFFFF0000u)};
}
template <>
__device__ __forceinline__ float2 unpack2<Fp16>(uint32_t packed) {
  float2 two;
  asm("{\n.reg .f16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}"
      : "=f"(two.x), "=f"(two.y)
      : "r"(packed));
  return two;
}

// d (16 x 8) += a (16 x 16) b (16 x 8). With g = lane / 4, t = lane % 4: d holds (g, 2 t), (g, 2 t + 1), (g + 8, the
// same); a is four 8 x 8 matrices: upper left, lower left, upper right, lower right; b the upper and the lower one,
// each transposed.
template <class Element>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma<Bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<Fp16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d (16 x 8) += a (16 x 8) b (8 x 8): a holds (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b (t, g), (t + 4, g).
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return rounded;
}

}  // namespace mimic

#endif
