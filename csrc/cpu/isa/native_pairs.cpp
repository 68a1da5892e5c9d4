// Where vdpbf16ps multiplies pairs.
#include "cpu/isa/parts.h"
#include "cpu/shallow_bf16.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowBf16Kernels native_pairs = bf16_kernels<ByPairs<NativePair>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
