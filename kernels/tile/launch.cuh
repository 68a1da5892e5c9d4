// launch(kernel, grid, threads, shared bytes, stream, arguments...): a kernel on the device, or in the emulator.
#pragma once

#ifdef MIMIC_SIMT
#include "simt/grid.h"
#else

#include <cuda_runtime.h>

#include "tile/recent.h"

namespace mimic {

// Whether the device runs the kernel's code for sm_90a. Other devices run code for older chips, or their PTX. The code
// for plain sm_90 says 90 too, but is a stub of few registers (tile.cuh).
template <class... P>
bool has_code_for_sm_90a(void (*kernel)(P...)) {
  constexpr int kStubRegisters = 64;
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.ptxVersion == 90 &&
         attributes.numRegs > kStubRegisters;
}

// Of the current device, or those of an H100 where there is none.
inline int multiprocessors() {
  constexpr int kOfH100 = 132;
  int device = 0, count = 0;
  const bool found = cudaGetDevice(&device) == cudaSuccess &&
                     cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess;
  return found && count > 0 ? count : kOfH100;
}

// The most shared memory that a block may ask for on the current device.
inline cudaError_t most_shared_bytes(size_t& bytes) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  bytes = size_t(most);
  return error;
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t stream,
                   A... args) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {  // always the most: another thread may launch the same kernel meanwhile
    size_t most = 0;
    cudaError_t error = most_shared_bytes(most);
    if (error == cudaSuccess)
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(most));
    if (error != cudaSuccess) return error;
  }
  remember_launch(reinterpret_cast<const void*>(kernel));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, P(args)...);
}

}  // namespace mimic

#endif
