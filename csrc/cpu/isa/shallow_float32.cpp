#include "cpu/shallow.h"

#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

using By = ByMicrokernel<OwnNumbers<float>>;

static void forward(const ShallowForward<float>& f) { f.shape.few_rows ? shallow_forward_few_rows(f) : By::forward(f); }

const ShallowKernels<float> shallow_float32 = {forward, shallow_backward<By>, shallow_step<By>};

}  // namespace MIMIC_ISA
}  // namespace mimic
