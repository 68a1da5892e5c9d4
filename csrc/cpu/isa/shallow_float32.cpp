#include "cpu/shallow.h"

#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

static void forward(const ShallowForward<float>& f) {
  f.shape.few_rows ? shallow_forward_few_rows(f) : shallow_forward(f);
}

const ShallowKernels<float> shallow_float32 = {forward, shallow_backward<float>, shallow_step<float>};

}  // namespace MIMIC_ISA
}  // namespace mimic
