#include "cpu/isa/parts.h"
#include "cpu/shallow.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowKernels<float, Source> pairs = shallow_kernels<ByMicrokernel<RoundedPairs<Pair>>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
