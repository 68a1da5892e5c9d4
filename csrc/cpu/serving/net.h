// A whole net, x -> y, for a few rows: bound by reading the weights once. Threads take slabs of units. Sums run in the
// order of the training kernels, so float32 gives their bits.
#pragma once

#include "cpu/linear.h"
#include "cpu/serving/weights.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kServedPart = 32;  // rows of V that one task takes

template <bool kVnni>
void serve_with(const Serving& f) {
  const int64_t k = f.k, slab_row = ceil_div(f.slab, kServedPart) * kServedPart;
  const int64_t y_row = ceil_div(f.C, int64_t(kServed)) * kServed, parts_of_V = ceil_div(k, kServedPart);
  const bool bottleneck = f.V.values, int8 = f.storage == Storage::int8;
  const int64_t size = int8 ? 1 : f.storage == Storage::bfloat16 ? 2 : 4;
  const ptrdiff_t ahead = ahead_in((k * (bottleneck ? f.D : 0) + f.H * (k + f.C)) * size);
  const int members_V = threads_for(k * f.D * size, kBytesWorthAThread);
  const SlabGroups groups(f.H, f.slab, threads_for(f.H * (k + f.C) * size, kBytesWorthAThread), f.B * slab_row);
  const int most = groups.members > members_V ? groups.members : members_V;
  const int64_t widest = f.D > k ? f.D : k, of_V = f.B * kServedPart, of_U = groups.hidden();
  const int64_t hidden_size = 2 * (of_V > of_U ? of_V : of_U);
  float *x, *z, *parts, *hidden;
  Digits digits;
  const auto layout = [&](Arena arena) {
    x = arena.take<float>(f.B * f.D);
    z = arena.take<float>(f.B * parts_of_V * kServedPart);
    parts = arena.take<float>(groups.slabs * f.B * y_row);
    hidden = arena.take<float>(most * hidden_size);
    digits.high = arena.take<uint8_t>(int8 ? f.B * digits_row(widest) : 0);
    digits.low = arena.take<uint8_t>(int8 ? f.B * digits_row(widest) : 0);
    digits.step = arena.take<float>(int8 ? f.B : 0);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));

  const float* input = f.x;
  if (f.mean) {
    for (int64_t r = 0; r < f.B; ++r) {
      for (int64_t i = 0; i < f.D; ++i) x[r * f.D + i] = (f.x[r * f.D + i] - f.mean[i]) * f.scale[i];
    }
    input = x;
  }
  if (bottleneck) {
    if (int8) digits_of(f.B, f.D, input, f.D, digits);
    share(members_V, parts_of_V, [&](int64_t part, int rank) {
      float* const out = hidden + rank * hidden_size;
      const int64_t begin = part * kServedPart, units = least(k - begin, kServedPart);
      stored_products<kVnni>(f.storage, ahead, f.B, input, f.D, kDepth, digits, f.V, begin, units, out, kServedPart);
      for (int64_t r = 0; r < f.B; ++r) copy(units, out + r * kServedPart, z + r * k + begin);
    });
    input = z;
  }
  if (int8) digits_of(f.B, k, input, k, digits);
  const auto slab_of = [&](int64_t i) { return Slab{i * f.slab, least(f.slab, f.H - i * f.slab)}; };
  const auto make = [&](int64_t i, float* h) {
    const Slab slab = slab_of(i);
    prefetch_bias(f.b + slab.begin, slab.units);
    stored_products<kVnni>(f.storage, ahead, f.B, input, k, k, digits, f.U, slab.begin, slab.units, h, slab_row);
    for (int64_t r = 0; r < f.B; ++r) {
      float* const row = h + r * slab_row;
      for (int64_t j = 0; j < slab.units; ++j) row[j] += f.b[slab.begin + j];
      activate(f.activation, slab.units, row, row, static_cast<float*>(nullptr));
    }
  };
  const auto use = [&](int64_t i, bool pair, float* h) {
    stored_outputs<kVnni>(f.storage, f.B, slab_of(i), f.slab, pair, f.W, f.C, h, slab_row, parts + i * f.B * y_row);
  };
  groups.run(hidden, hidden_size, make, use);
  for (int64_t r = 0; r < f.B; ++r) {
    float* const y = f.y + r * f.C;
    copy(f.C, f.c, y);
    for (int64_t slab = 0; slab < groups.slabs; ++slab) {
      const float* const part = parts + (slab * f.B + r) * y_row;
      for (int64_t j = 0; j < f.C; ++j) y[j] += part[j];
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
