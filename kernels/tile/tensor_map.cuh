// What the copy engine must know of an operand of 16-bit elements. The launcher makes it and passes it to the kernel.
#pragma once

#include "launch.h"
#include "tile/memo.h"
#include "tile/tile_sm90a.cuh"

namespace mimic {

constexpr int kBoxColumns = 64, kNarrowColumns = 16;  // of a box

#ifdef MIMIC_SIMT

inline cudaError_t encode_tensor_map(TensorMap& map, const void* data, int64_t ld, int64_t rows, int64_t columns,
                                     pymimic_precision, int box_rows, int box_columns) {
  simt::count_tensor_map();
  map = {data, ld * 2, rows, columns, box_rows, box_columns};
  return simt::is_valid(map) ? cudaSuccess : cudaErrorInvalidValue;
}

#else

// The driver's function is looked up at run time, so that nothing links to the driver.
inline cudaError_t encode_tensor_map(TensorMap& map, const void* data, int64_t ld, int64_t rows, int64_t columns,
                                     pymimic_precision precision, int box_rows, int box_columns) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {cuuint64_t(columns), cuuint64_t(rows)}, strides[1] = {cuuint64_t(ld) * 2};
  const cuuint32_t box[2] = {cuuint32_t(box_columns), cuuint32_t(box_rows)}, steps[2] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      &map, precision == PYMIMIC_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
      const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      box_columns == kBoxColumns ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#endif

// A map says where an array is and nothing of what is in it, so that the arguments are all that it depends on: those of
// a step are the same as of the step before it.
inline cudaError_t make_tensor_map(TensorMap& map, const void* data, int64_t ld, int64_t rows, int64_t columns,
                                   pymimic_precision precision, int box_rows, int box_columns = kBoxColumns) {
  thread_local Memo<TensorMap, 7> memo;
  const auto make = [&](TensorMap& made) {
    return encode_tensor_map(made, data, ld, rows, columns, precision, box_rows, box_columns);
  };
  const auto address = int64_t(reinterpret_cast<uintptr_t>(data));
  return memo.ask({address, ld, rows, columns, precision, box_rows, box_columns}, map, make);
}

}  // namespace mimic
