// What the binding asks of the CUDA runtime; the emulator has its own answers, in tests/cuda/binding.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

namespace mimic {

struct Error {
  std::string name, text, advice;
};
Error describe(cudaError_t error);

// The device that has the memory: -1 where none has it. `current` is where launches go.
cudaError_t device_of(const void* memory, int* device, int* current);
cudaError_t current_device(int* current);

// What the compiler made of a kernel for the current device.
struct KernelReport {
  std::string name;
  int ptx_version, binary_version, registers;
};
cudaError_t describe_kernel(const void* kernel, KernelReport* report);

// A line for each device, in the order of their numbers.
cudaError_t list_devices(std::vector<std::string>* lines);

}  // namespace mimic
