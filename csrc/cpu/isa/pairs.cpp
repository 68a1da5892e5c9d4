#include "cpu/isa/parts.h"
#include "cpu/shallow_rounded.h"

namespace mimic {
namespace MIMIC_ISA {

const RoundedKernels pairs = rounded_kernels<ByPairs<Pair>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
