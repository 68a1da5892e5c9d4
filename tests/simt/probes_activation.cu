// The activations for 16-bit results, before they are rounded.
#include "hidden/activate_16bit.cuh"
#include "tile/launch.cuh"

namespace mimic {
namespace {

__global__ void activations_16bit(const float* a, float* values, float* slopes, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += 32) {
    const Activated<float> made[] = {tanh_16bit(a[i]), sigmoid_16bit(a[i]), gelu_16bit(a[i])};
    for (int f = 0; f < 3; ++f) values[f * count + i] = made[f].value, slopes[f * count + i] = made[f].slope;
  }
}

}  // namespace
}  // namespace mimic

// values and slopes (3, count): tanh, sigmoid, gelu.
extern "C" cudaError_t probe_activations_16bit(const float* a, float* values, float* slopes, int64_t count) {
  return mimic::launch(mimic::activations_16bit, dim3(1), 32, 0, nullptr, a, values, slopes, count);
}
