// Philox4x32-7 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4),
// and which random byte belongs to a (row, unit): the accumulator layout of mma.m16n8.
#pragma once

#include "common/host_device.h"

namespace mimic {

constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxMul0 = 0xD2511F53u, kPhiloxMul1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxKey0 = 0x9E3779B9u, kPhiloxKey1 = 0xBB67AE85u;

// One tile of the mask is 16 rows by 32 units. Each of its 32 lanes draws 16 bytes, with the counter (offset, lane,
// row / 16, unit / 32). The byte of (row, unit) is drawn by lane 4 (row % 8) + unit % 8 / 2, and is its byte number
// 4 (unit % 32 / 8) + 2 (row % 16 / 8) + unit % 2, from the low end of word 0 on.
constexpr int kMaskRows = 16, kMaskUnits = 32;

struct Philox4 {
  uint32_t word[4];
};

MIMIC_HD Philox4 philox4x32(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = uint64_t(kPhiloxMul0) * counter.word[0], p1 = uint64_t(kPhiloxMul1) * counter.word[2];
    counter = {{uint32_t(p1 >> 32) ^ counter.word[1] ^ key0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter.word[3] ^ key1,
                uint32_t(p0)}};
    key0 += kPhiloxKey0;
    key1 += kPhiloxKey1;
  }
  return counter;
}

}  // namespace mimic
