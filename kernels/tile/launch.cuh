// launch(kernel, grid, threads, shared bytes, stream, arguments...): a kernel on the device, or in the emulator.
#pragma once

#ifdef MIMIC_SIMT
#include "simt/grid.h"
#else

#include <cuda_runtime.h>

#include "tile/memo.h"
#include "tile/recent.h"

namespace mimic {

// A kernel that is not for the chip that the code is for is a stub that traps (tile.cuh). It has few registers;
// tools/sass_report.py checks that.
constexpr int kStubRegisters = 64;

// What never changes about a kernel on a device, or about the device alone. After it has been asked for, a block of the
// kernel may have all the shared memory that there is beside what is static: always the most, as another thread may
// launch the same kernel.
struct KernelFacts {
  int registers = 0, binary_version = 0, multiprocessors = 0;
  size_t most_shared = 0;
};

inline cudaError_t find_facts(KernelFacts& facts, const void* kernel, int device) {
  int most = 0;
  cudaError_t error = cudaDeviceGetAttribute(&facts.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  facts.most_shared = size_t(most);
  if (error != cudaSuccess || !kernel) return error;
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  facts.registers = attributes.numRegs, facts.binary_version = attributes.binaryVersion;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              int(most - int(attributes.sharedSizeBytes)));
}

// Of the current device; `kernel` may be null.
inline cudaError_t facts_of(const void* kernel, KernelFacts& facts) {
  thread_local Memo<KernelFacts, 2> memo;
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  return memo.ask({int64_t(reinterpret_cast<uintptr_t>(kernel)), device}, facts,
                  [&](KernelFacts& found) { return find_facts(found, kernel, device); });
}

template <class... P>
bool is_stub(void (*kernel)(P...)) {
  KernelFacts facts;
  return facts_of(reinterpret_cast<const void*>(kernel), facts) == cudaSuccess && facts.registers <= kStubRegisters;
}

// Whether the device runs the kernel's code for sm_90a. Other devices run code for older chips, or their PTX, and there
// it is a stub.
template <class... P>
bool has_code_for_sm_90a(void (*kernel)(P...)) {
  KernelFacts facts;
  return facts_of(reinterpret_cast<const void*>(kernel), facts) == cudaSuccess && facts.binary_version == 90 &&
         facts.registers > kStubRegisters;
}

// Of the current device, or those of an H100 where there is none.
inline int multiprocessors() {
  constexpr int kOfH100 = 132;
  KernelFacts facts;
  return facts_of(nullptr, facts) == cudaSuccess && facts.multiprocessors > 0 ? facts.multiprocessors : kOfH100;
}

// The most shared memory that a block may ask for on the current device.
inline cudaError_t most_shared_bytes(size_t& bytes) {
  KernelFacts facts;
  const cudaError_t error = facts_of(nullptr, facts);
  bytes = facts.most_shared;
  return error;
}

// How many blocks run at the same time on the current device: at least one a multiprocessor.
template <class... P>
int blocks_at_once(void (*kernel)(P...), unsigned threads, size_t shared_bytes) {
  int of_one = 0;
  KernelFacts facts;
  const bool found =
      facts_of(reinterpret_cast<const void*>(kernel), facts) == cudaSuccess &&
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, int(threads), shared_bytes) == cudaSuccess;
  return (found && of_one > 0 ? of_one : 1) * multiprocessors();
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t stream,
                   A... args) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  KernelFacts facts;
  if (shared_bytes > kWithoutAsking)
    if (const cudaError_t error = facts_of(reinterpret_cast<const void*>(kernel), facts); error != cudaSuccess)
      return error;
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
