// The functions that need sm_90a: barriers in shared memory that count bytes, the copy engine, wgmma. As in tile.cuh,
// each has a model on the host (csrc/simt/tile_sm90a.h).
#pragma once

#include "tile/tile.cuh"

#ifdef MIMIC_SIMT
#include "simt/tile_sm90a.h"
#else

#include <cuda.h>

namespace mimic {

// `value`, which is the same in all lanes; this tells the compiler.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(~0u, value, 0); }

// ---- Barriers: 8 bytes of shared memory. A phase ends when all arrivals and all bytes that it expects have come. ----

__device__ __forceinline__ void mbarrier_init(uint32_t at, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(at)), "r"(arrivals) : "memory");
}

// Called by the thread that has made barriers, before the block's barrier: now the copy engine sees them.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint32_t at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(at)) : "memory");
}

// Arrives, and makes this phase wait for so many bytes of copies too.
__device__ __forceinline__ void mbarrier_arrive_expecting(uint32_t at, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(at)), "r"(bytes)
               : "memory");
}

// Waits until the phase of this parity has ended: 0 for the first, 1 for the second. A fresh barrier counts as one
// whose phase of parity 1 has ended.
__device__ __forceinline__ void mbarrier_wait(uint32_t at, uint32_t parity) {
  asm volatile(
      "{ .reg .pred over;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again; }" ::"r"(shared_address(at)),
      "r"(parity)
      : "memory");
}

// ---- The copy engine: boxes of 64 columns (128 bytes), or of 16, out of an array of 16-bit elements: tensor_map.cuh
// ---

using TensorMap = CUtensorMap;

// One thread copies the box whose first element is (row, column) to `to`, a multiple of 1024, in the layout of
// swizzled.cuh. Elements beyond the array are zeros. When the copy is done, the barrier counts all bytes of the box.
__device__ __forceinline__ void copy_box(uint32_t to, const TensorMap& map, int column, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(shared_address(to)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

// Prefetches memory into the second-level cache; `from` and bytes are multiples of 16.
__device__ __forceinline__ void prefetch(const void* from, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)), "r"(bytes));
}

// ---- Products of a warpgroup: 4 warps, the first a multiple of 4. Warp w has rows 16 w ... of the 64; its sums and
// its A fragments have the layout of mma. A product runs asynchronously until the wait for its group: until then nobody
// may touch its sums, its fragments, or its operands in shared memory.

// Called after a thread's own accesses to sums or fragments, before the products that use them next.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of products.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits for all groups but the last `still_under_way`.
template <int still_under_way>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(still_under_way) : "memory");
}

// Called after the wait: the compiler reads no sum before.
template <int tiles>
__device__ __forceinline__ void wgmma_done(float (&d)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < 4 * tiles; ++j) asm volatile("" : "+f"(d[j / 4][j % 4])::"memory");
}

#define MIMIC_TILE(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define MIMIC_NEW_TILE(d, n) "=f"(d[n][0]), "=f"(d[n][1]), "=f"(d[n][2]), "=f"(d[n][3])
#define MIMIC_4_TILES(d, n) MIMIC_TILE(d, n), MIMIC_TILE(d, n + 1), MIMIC_TILE(d, n + 2), MIMIC_TILE(d, n + 3)
#define MIMIC_8_TILES(d, n) MIMIC_4_TILES(d, n), MIMIC_4_TILES(d, n + 4)

// d (64 x 128) = a (64 x 16) b^T, or with `add` added to d. Rows of a and b (128 x 16) are parts of rows of pieces.
template <class Element>
__device__ __forceinline__ void wgmma_along(float (&d)[16][4], uint64_t a, uint64_t b, bool add);
template <>
__device__ __forceinline__ void wgmma_along<Bf16>(float (&d)[16][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, 0, 0; }"
      : MIMIC_8_TILES(d, 0), MIMIC_8_TILES(d, 8)
      : "l"(a), "l"(b), "r"(int(add)));
}
template <>
__device__ __forceinline__ void wgmma_along<Fp16>(float (&d)[16][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, 0, 0; }"
      : MIMIC_8_TILES(d, 0), MIMIC_8_TILES(d, 8)
      : "l"(a), "l"(b), "r"(int(add)));
}
// The same with d (64 x 64), b (64 x 16).
template <class Element>
__device__ __forceinline__ void wgmma_along(float (&d)[8][4], uint64_t a, uint64_t b, bool add);
template <>
__device__ __forceinline__ void wgmma_along<Bf16>(float (&d)[8][4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, add, 1, 1, 0, 0; }"
      : MIMIC_8_TILES(d, 0)
      : "l"(a), "l"(b), "r"(int(add)));
}

// d (64 x 64) = a b^T, without a condition: before it, d takes no registers.
template <class Element>
__device__ __forceinline__ void wgmma_along_first(float (&d)[8][4], uint64_t a, uint64_t b);
template <>
__device__ __forceinline__ void wgmma_along_first<Bf16>(float (&d)[8][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{ .reg .pred add; setp.ne.b32 add, 0, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, add, 1, 1, 0, 0; }"
      : MIMIC_NEW_TILE(d, 0), MIMIC_NEW_TILE(d, 1), MIMIC_NEW_TILE(d, 2), MIMIC_NEW_TILE(d, 3), MIMIC_NEW_TILE(d, 4),
        MIMIC_NEW_TILE(d, 5), MIMIC_NEW_TILE(d, 6), MIMIC_NEW_TILE(d, 7)
      : "l"(a), "l"(b));
}

// d (64 x 64) += a (64 x 16) b, a in registers; b (16 x 64) are 16 rows of a piece.
template <class Element>
__device__ __forceinline__ void wgmma_down(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ __forceinline__ void wgmma_down<Bf16>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : MIMIC_8_TILES(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
__device__ __forceinline__ void wgmma_down<Fp16>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : MIMIC_8_TILES(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d (64 x 16) += a (64 x 16) b, a in registers; b (16 x 16) are 16 rows of a narrow piece.
template <class Element>
__device__ __forceinline__ void wgmma_down(float (&d)[2][4], const uint32_t (&a)[4], uint64_t b);
template <>
__device__ __forceinline__ void wgmma_down<Bf16>(float (&d)[2][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, 1, 1, 1, 1;"
      : MIMIC_TILE(d, 0), MIMIC_TILE(d, 1)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// ---- The block's barrier number `id`, from 1 on, for a part of its threads: whole warps. ----------------------------

template <int threads>
__device__ __forceinline__ void sync_some(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(threads) : "memory");
}

// ---- Warpgroups pass registers to each other: each calls one of these once, at its start. ---------------------------

template <int registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

}  // namespace mimic

#endif

namespace mimic {

// Tells wgmma where a piece is in shared memory, or 16 of its columns (32 bytes further): groups of 8 rows of 128
// swizzled bytes, 1024 bytes from group to group.
__device__ __forceinline__ uint64_t piece_descriptor(uint32_t at) {
  constexpr uint64_t group = 1024 >> 4, swizzle_128 = 1;
  return (shared_address(at) >> 4 & 0x3FFF) | group << 16 | group << 32 | swizzle_128 << 62;
}

// The same of a narrow piece: groups of 8 rows of 32 swizzled bytes.
__device__ __forceinline__ uint64_t narrow_descriptor(uint32_t at) {
  constexpr uint64_t group = 256 >> 4, swizzle_32 = 3;
  return (shared_address(at) >> 4 & 0x3FFF) | group << 16 | group << 32 | swizzle_32 << 62;
}

}  // namespace mimic
