// launch(kernel, grid, threads, shared bytes, stream, arguments...): a kernel on the device, or in the emulator.
#pragma once

#ifdef MIMIC_SIMT
#include "simt/grid.h"
#else

#include <cuda_runtime.h>

#include "tile/recent.h"

namespace mimic {

// A kernel that is not for the chip that the code is for is a stub that traps (tile.cuh). It has few registers;
// tools/sass_report.py checks that.
constexpr int kStubRegisters = 64;

template <class... P>
bool is_stub(void (*kernel)(P...)) {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.numRegs <= kStubRegisters;
}

// Whether the device runs the kernel's code for sm_90a. Other devices run code for older chips, or their PTX, and there
// it is a stub.
template <class... P>
bool has_code_for_sm_90a(void (*kernel)(P...)) {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess && attributes.binaryVersion == 90 &&
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

// Lets a kernel's blocks ask for all the shared memory that they may have beside what is static. Always the most:
// another thread may launch the same kernel meanwhile.
template <class... P>
cudaError_t allow_most_shared(void (*kernel)(P...)) {
  size_t most = 0;
  cudaFuncAttributes attributes;
  cudaError_t error = most_shared_bytes(most);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              int(most - attributes.sharedSizeBytes));
}

// How many blocks run at the same time on the current device: at least one a multiprocessor.
template <class... P>
int blocks_at_once(void (*kernel)(P...), unsigned threads, size_t shared_bytes) {
  int of_one = 0;
  const bool found =
      allow_most_shared(kernel) == cudaSuccess &&
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, int(threads), shared_bytes) == cudaSuccess;
  return (found && of_one > 0 ? of_one : 1) * multiprocessors();
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t stream,
                   A... args) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking)
    if (const cudaError_t error = allow_most_shared(kernel); error != cudaSuccess) return error;
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
