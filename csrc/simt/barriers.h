// Models of barriers in shared memory (mbarrier) and of the copy engine that reports to them.
#pragma once

#include "simt/block.h"

namespace simt {

void mbarrier_init(uint32_t at, uint32_t arrivals, const Location& where);
void mbarrier_init_fence(const Location& where);  // the copy engine now sees the barriers that this thread has made
void mbarrier_arrive(uint32_t at, uint32_t expected_bytes, const Location& where);
void mbarrier_wait(uint32_t at, uint32_t parity, const Location& where);

// An array (rows, columns) of 16-bit elements, cut into boxes of 64 or 16 columns. It has the size and the alignment of
// the driver's, so that kernels' parameters lie where they do on a device.
struct alignas(128) TensorMap {
  const void* data;
  int64_t row_bytes, rows, columns;
  int box_rows, box_columns;
  int64_t unused[11] = {};
};
static_assert(sizeof(TensorMap) == 128);
bool is_valid(const TensorMap& map);

// The place of 16 bytes of a piece whose rows have so many: 128 or 32.
inline uint32_t swizzled(uint32_t address, uint32_t row_bytes) {
  return address ^ (address >> 7 & (row_bytes == 128 ? 7 : 1)) << 4;
}
void count_tensor_map();

void copy_box(uint32_t to, const TensorMap& map, int column, int row, uint32_t barrier, const Location& where);

void prefetch(const void* from, uint32_t bytes, const Location& where);

}  // namespace simt
