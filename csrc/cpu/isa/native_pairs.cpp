// Where vdpbf16ps multiplies pairs.
#include "cpu/isa/parts.h"
#include "cpu/shallow_rounded.h"

namespace mimic {
namespace MIMIC_ISA {

const RoundedKernels native_pairs = rounded_kernels<ByPairs<NativePair>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
