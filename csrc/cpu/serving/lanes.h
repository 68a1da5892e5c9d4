// What all layouts of stored weights have in common.
#pragma once

#include <type_traits>

#include "cpu/serving/few_rows.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kServed = 16;  // lanes of packed weights

// Registers of the instruction set, of which some make up the lanes: compilers put longer vectors into memory.
using Served = Vector<float>;
using ServedInt = Vector<int32_t>;
using ServedWord = Vector<uint32_t>;
constexpr int kRegister = kLanes<float>;
static_assert(kServed % kRegister == 0, "whole registers");

// How many bytes ahead panels are prefetched: none where the weights fit a cache, which are read faster so.
MIMIC_INLINE ptrdiff_t ahead_in(int64_t weight_bytes) { return weight_bytes > (8 << 20) ? 16 << 10 : 0; }

// f(r) for all rows: four at a time, then two, then one.
template <class Four, class Two, class One>
MIMIC_INLINE void each_few(int64_t rows, Four four, Two two, One one) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) four(r);
  for (; r + 2 <= rows; r += 2) two(r);
  for (; r < rows; ++r) one(r);
}

template <int N>
using Count = std::integral_constant<int, N>;

// f(V, c) for all columns of rows that are whole lanes: V registers from column c on, as many as there are for sums.
template <class F>
MIMIC_INLINE void each_columns(int64_t row, F f) {
  int64_t c = 0;
  const auto go = [&](auto V) {
    for (; c + V.value * kRegister <= row; c += V.value * kRegister) f(V, c);
  };
  if constexpr (kRegister == kServed) go(Count<12>());
  go(Count<6>()), go(Count<3>()), go(Count<1>());
}

}  // namespace MIMIC_ISA
}  // namespace mimic
