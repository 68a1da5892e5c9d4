#include "cpu/linear.h"

#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

template void linear_da(const LinearBackward<float>&);

const LinearKernels<float> linear_float32 = linear_kernels<ByVectors, float>;

}  // namespace MIMIC_ISA
}  // namespace mimic
