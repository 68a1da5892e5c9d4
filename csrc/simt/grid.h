// launch() of kernels/tile/launch.cuh on the host.
#pragma once

#include <vector>

#include "cuda_runtime_api.h"
#include "tile/recent.h"

namespace simt {

// What a launcher asked for. The parameters are as a device has them in constant memory.
struct Launch {
  dim3 grid;
  unsigned threads;
  size_t shared_bytes;
  const void* kernel;
  std::vector<unsigned char> parameters;
};

cudaError_t launch(const Launch& asked, void (*body)(const void*), const void* argument);
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

template <class P>
void append_parameter(std::vector<unsigned char>& to, const P& parameter) {
  to.resize((to.size() + alignof(P) - 1) / alignof(P) * alignof(P));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&parameter);
  to.insert(to.end(), bytes, bytes + sizeof(P));
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, cudaStream_t, A... args) {
  simt::Launch asked = {grid, threads, shared_bytes, reinterpret_cast<const void*>(kernel), {}};
  remember_launch(asked.kernel);
  (append_parameter<P>(asked.parameters, args), ...);
  const auto call = [=] { kernel(P(args)...); };
  return simt::launch(asked, [](const void* c) { (*static_cast<decltype(&call)>(c))(); }, &call);
}

inline int multiprocessors() { return simt::multiprocessors(); }

inline cudaError_t most_shared_bytes(size_t& bytes) {
  bytes = simt::most_shared_bytes();
  return cudaSuccess;
}

}  // namespace mimic
