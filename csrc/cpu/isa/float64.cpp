// For gradient checks.
#include "cpu/isa/parts.h"
#include "cpu/linear.h"
#include "cpu/shallow.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowKernels<double> shallow_float64 = shallow_kernels<ByMicrokernel<OwnNumbers<double>>>;
const LinearKernels<double> linear_float64 = linear_kernels<ByVectors, double>;

}  // namespace MIMIC_ISA
}  // namespace mimic
