// bfloat16: the upper half of a float, rounded to nearest even. NaN stays NaN.
#pragma once

#include "common/host_device.h"

namespace mimic {

MIMIC_HD uint16_t bfloat16_from(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return uint16_t((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16 | 0x40u) : rounded);
}

MIMIC_HD float float_from(uint16_t x) {
  const uint32_t bits = uint32_t(x) << 16;
  float result;
  __builtin_memcpy(&result, &bits, 4);
  return result;
}

}  // namespace mimic
