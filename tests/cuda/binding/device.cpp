// csrc/bindings/device.h for the emulator: one device, whose memory is the host's. Tests say what else should be so.
#include "bindings/device.h"

namespace {
uintptr_t elsewhere[2], hostside[2];  // address ranges of "another device" and of "the host"
bool inside(const uintptr_t range[2], const void* memory) {
  const auto at = reinterpret_cast<uintptr_t>(memory);
  return at >= range[0] && at < range[1];
}
}  // namespace

namespace mimic {

Error describe(cudaError_t error) {
  if (error == cudaErrorInvalidValue)
    return {"cudaErrorInvalidValue", "invalid argument", "a size is beyond the kernels' limits"};
  return {"cudaErrorLaunchFailure", "unspecified launch failure", "a kernel of this process went wrong"};
}

cudaError_t device_of(const void* memory, int* device, int* current) {
  *current = 0;
  *device = inside(hostside, memory) ? -1 : inside(elsewhere, memory) ? 1 : 0;
  return cudaSuccess;
}

cudaError_t current_device(int* current) {
  *current = 0;
  return cudaSuccess;
}

cudaError_t describe_kernel(const void* kernel, KernelReport* report) {
  *report = {"kernel at " + std::to_string(reinterpret_cast<uintptr_t>(kernel)), 0, 0, 0};
  return cudaSuccess;
}

cudaError_t list_devices(std::vector<std::string>* lines) {
  lines->push_back("the emulator");
  return cudaSuccess;
}

}  // namespace mimic

extern "C" {
__attribute__((visibility("default"))) void pretend_elsewhere(uintptr_t begin, uintptr_t end) {
  elsewhere[0] = begin, elsewhere[1] = end;
}
__attribute__((visibility("default"))) void pretend_host(uintptr_t begin, uintptr_t end) {
  hostside[0] = begin, hostside[1] = end;
}
}
