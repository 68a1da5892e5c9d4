// Where vdpbf16ps multiplies pairs.
#include "cpu/isa/parts.h"
#include "cpu/shallow.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowKernels<float, Source> native_pairs = shallow_kernels<ByMicrokernel<RoundedPairs<NativePair>>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
