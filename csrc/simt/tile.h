// The vocabulary of kernels/tile/tile.cuh on the host. A defaulted last parameter gives each call site its identity.
#pragma once

#include <string.h>

#include <cmath>

#include "common/bfloat16.h"
#include "simt/tensor_core.h"

namespace mimic {

using Site = simt::Location;

// The kernels for all chips run here.
constexpr bool kForSm80 = true, kForSm90a = true;

inline void not_for_this_chip(Site site = Site::current()) {
  simt::block.fail("a kernel that the launcher should not have chosen", site);
}

template <class T>
T load_shared(uint32_t at, Site site = Site::current()) {
  return *static_cast<const T*>(simt::shared(at, sizeof(T), site));
}

template <class T>
void store_shared(uint32_t at, T value, Site site = Site::current()) {
  *static_cast<T*>(simt::shared(at, sizeof(T), site)) = value;
}

inline int fresh_thread() { return int(threadIdx.x); }

inline void sync_block(Site site = Site::current()) {
  if (!simt::removed("sync_block", site)) simt::block.arrive(0, simt::block.threads(), true, "sync_block", site);
}

inline void sync_warp(Site site = Site::current()) {
  if (!simt::removed("sync_warp", site)) simt::meet("sync_warp", site, nullptr, [](void**, const Site&) {});
}

inline uint32_t shuffle(uint32_t value, int lane, Site site = Site::current()) {
  return simt::shuffle(value, lane, site);
}

inline uint32_t shuffle_xor(uint32_t value, int mask, Site site = Site::current()) {
  return simt::shuffle(value, simt::block.lane() ^ mask, site);
}

inline float shuffle_xor(float value, int mask, Site site = Site::current()) {
  return __builtin_bit_cast(float, simt::shuffle(__builtin_bit_cast(uint32_t, value), simt::block.lane() ^ mask, site));
}

inline void store_global(float* to, float4 value) { *reinterpret_cast<float4*>(to) = value; }

// The copy is done at a random moment; until then its destination holds NaNs.
template <int bytes>
void copy_async(uint32_t at, const void* from, bool valid, Site site = Site::current()) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  simt::Thread& thread = simt::block.thread();
  thread.where = site;
  memset(simt::shared(at, bytes, site), 0xFF, bytes);
  if (valid && reinterpret_cast<uintptr_t>(from) % bytes) simt::block.fail("copy_async: misaligned source", site);
  thread.copies.push_back({at, from, bytes, valid ? bytes : 0, thread.groups});
}

inline void copy_async_commit(Site site = Site::current()) {
  if (!simt::removed("copy_async_commit", site)) ++simt::block.thread().groups;
}

template <int still_under_way>
void copy_async_wait(Site site = Site::current()) {
  if (simt::removed("copy_async_wait", site)) return;
  simt::Thread& thread = simt::block.thread();
  for (size_t i = thread.copies.size(); i-- > 0;)
    if (thread.copies[i].group < thread.groups - still_under_way) simt::block.deliver(thread, i);
}

inline void load_matrices(uint32_t (&to)[4], uint32_t at, Site site = Site::current()) {
  simt::load_matrices({at, to}, false, site);
}

inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t at, Site site = Site::current()) {
  simt::load_matrices({at, to}, true, site);
}

// With an error that the x decides on, up to the 2^-22 that the hardware may make.
inline float exp2_approx(float x) {
  const uint32_t scrambled = __builtin_bit_cast(uint32_t, x) * 0x9E3779B9u;
  const double error = (double(scrambled >> 8) / double(1 << 23) - 1) / double(1 << 22);
  const float power = float(std::exp2(double(x)) * (1 + error));
  return power < 0x1p-126f ? 0.0f : power;
}

inline float relu(float x) { return x < 0 ? 0.0f : x; }

struct Bf16 {
  static constexpr simt::Operand operand = simt::Operand::bf16;
};
struct Fp16 {
  static constexpr simt::Operand operand = simt::Operand::fp16;
};

template <class Element>
uint32_t pack2(float low, float high) {
  const auto bits = [](float x) {
    return Element::operand == simt::Operand::bf16 ? bfloat16_from(x) : simt::half_from(x);
  };
  return bits(low) | uint32_t(bits(high)) << 16;
}

template <class Element>
uint32_t pack2_relu(float low, float high) {
  return pack2<Element>(relu(low), relu(high));
}

template <class Element>
float2 unpack2(uint32_t packed) {
  const auto value = [](uint32_t bits) {
    return Element::operand == simt::Operand::bf16 ? float_from(uint16_t(bits)) : simt::float_from_half(uint16_t(bits));
  };
  return {value(packed & 0xFFFFu), value(packed >> 16)};
}

template <class Element>
void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site = Site::current()) {
  simt::multiply(Element::operand, {d, a, {b0, b1}}, site);
}

inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Site site = Site::current()) {
  simt::multiply(simt::Operand::tf32, {d, a, {b0, b1}}, site);
}

// Rounds to nearest, halves away from zero, as cvt.rna does.
inline uint32_t to_tf32(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return (bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u;
}

}  // namespace mimic
