#include "bindings/device.h"

#include <cxxabi.h>

#include <cstdlib>

namespace mimic {
namespace {

const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorInitializationError:
      return "there is no NVIDIA driver or device here that this build can use; install or update the driver, or pass "
             "NumPy arrays, which run on the CPU";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidKernelImage:
      return "this build has no code for the device: compute capability 8.0 or later is needed; build pymimic with "
             "CMAKE_CUDA_ARCHITECTURES set to the device's (90a-real for 9.0)";
    case cudaErrorMemoryAllocation: return "free device memory, or take fewer rows at once";
    case cudaErrorInvalidValue: return "a size is beyond the kernels' limits";
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureImplicit:
      return "the call cannot be captured into a graph: run it once before, inside a pymimic.Workspace, and capture it "
             "inside the same";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
    case cudaErrorIllegalInstruction:
      return "a kernel of this process went wrong, and its CUDA context with it: start a new process; "
             "compute-sanitizer "
             "tells which kernel it was";
    default: return "see the CUDA runtime's documentation of this error";
  }
}

}  // namespace

Error describe(cudaError_t error) { return {cudaGetErrorName(error), cudaGetErrorString(error), advice(error)}; }

cudaError_t device_of(const void* memory, int* device, int* current) {
  cudaPointerAttributes attributes = {};
  cudaError_t error = cudaGetDevice(current);
  if (error == cudaSuccess) error = cudaPointerGetAttributes(&attributes, memory);
  const bool on_device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  *device = on_device ? attributes.device : -1;
  return error;
}

cudaError_t current_device(int* current) { return cudaGetDevice(current); }

cudaError_t describe_kernel(const void* kernel, KernelReport* report) {
  cudaFuncAttributes attributes = {};
  const char* mangled = nullptr;
  cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaSuccess) error = cudaFuncGetName(&mangled, kernel);
  if (error != cudaSuccess) return error;
  char* name = abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr);
  *report = {name ? name : mangled, attributes.ptxVersion, attributes.binaryVersion, attributes.numRegs};
  std::free(name);
  return cudaSuccess;
}

cudaError_t list_devices(std::vector<std::string>* lines) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  for (int i = 0; error == cudaSuccess && i < count; ++i) {
    cudaDeviceProp p;
    error = cudaGetDeviceProperties(&p, i);
    if (error != cudaSuccess) break;
    lines->push_back(std::string(p.name) + ", compute capability " + std::to_string(p.major) + "." +
                     std::to_string(p.minor) + ", " + std::to_string(p.multiProcessorCount) + " multiprocessors, " +
                     std::to_string(p.totalGlobalMem >> 20) + " MiB");
  }
  return error;
}

}  // namespace mimic
