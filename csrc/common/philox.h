// Philox4x32-7 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4),
// and which random byte belongs to a (row, unit): the accumulator layout of mma.m16n8.
#pragma once

#include "common/host_device.h"

namespace mimic {

constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxMul0 = 0xD2511F53u, kPhiloxMul1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxKey0 = 0x9E3779B9u, kPhiloxKey1 = 0xBB67AE85u;

// One tile of the mask is 16 rows by 32 units; each of its 32 lanes draws 16 bytes.
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

MIMIC_HD uint32_t mask_lane(int64_t row, int64_t unit) { return uint32_t(4 * (row % 8) + unit % 8 / 2); }

MIMIC_HD int mask_byte(int64_t row, int64_t unit) { return int(4 * (unit % 32 / 8) + 2 * (row % 16 / 8) + unit % 2); }

// The random byte of one (row, unit): a unit is kept where it is below the threshold.
MIMIC_HD uint32_t dropout_byte(uint64_t seed, uint32_t offset, int64_t row, int64_t unit) {
  const Philox4 counter = {{offset, mask_lane(row, unit), uint32_t(row / kMaskRows), uint32_t(unit / kMaskUnits)}};
  const Philox4 random = philox4x32(counter, uint32_t(seed), uint32_t(seed >> 32));
  const int byte = mask_byte(row, unit);
  return random.word[byte / 4] >> (8 * (byte % 4)) & 255u;
}

}  // namespace mimic
