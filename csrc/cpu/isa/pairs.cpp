#include "cpu/isa/parts.h"
#include "cpu/shallow_bf16.h"

namespace mimic {
namespace MIMIC_ISA {

const ShallowBf16Kernels pairs = bf16_kernels<ByPairs<Pair>>;

}  // namespace MIMIC_ISA
}  // namespace mimic
