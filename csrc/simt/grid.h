// launch() of kernels/tile/launch.cuh on the host.
#pragma once

#include "cuda_runtime_api.h"
#include "tile/recent.h"

namespace simt {

cudaError_t launch(dim3 grid, unsigned threads, size_t shared_bytes, void (*body)(const void*), const void* argument);
size_t most_shared_bytes();

int multiprocessors();
int blocks_at_once(unsigned threads, size_t shared_bytes);  // on all of them, where registers are no limit
int compute_capability();                                   // of the device that is emulated: 80, or 90 for sm_90a

}  // namespace simt

namespace mimic {

template <class... P>
bool has_code_for_sm_90a(void (*)(P...)) {
  return simt::compute_capability() == 90;
}

template <class... P>
bool is_stub(void (*)(P...)) {
  return false;
}

template <class... P>
int blocks_at_once(void (*)(P...), unsigned threads, size_t shared_bytes) {
  return simt::blocks_at_once(threads, shared_bytes);
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t, A... args) {
  remember_launch(reinterpret_cast<const void*>(kernel));
  const auto call = [=] { kernel(P(args)...); };
  return simt::launch(grid, threads, shared_bytes, [](const void* c) { (*static_cast<decltype(&call)>(c))(); }, &call);
}

inline int multiprocessors() { return simt::multiprocessors(); }

inline cudaError_t most_shared_bytes(size_t& bytes) {
  bytes = simt::most_shared_bytes();
  return cudaSuccess;
}

}  // namespace mimic
