#include "cpu/shallow.h"

#include "cpu/isa/parts.h"
#include "cpu/serving/few_rows.h"

namespace mimic {
namespace MIMIC_ISA {

static void forward(const ShallowForward<float>& f) {
  const bool few_rows = f.shape.B <= kNarrowRows && !f.keep.any() && !f.shape.mask.drops();
  few_rows ? shallow_forward_few_rows(f) : shallow_forward(f);
}

const ShallowKernels<float> shallow_float32 = {forward, shallow_backward<float>, shallow_step<float>};

}  // namespace MIMIC_ISA
}  // namespace mimic
