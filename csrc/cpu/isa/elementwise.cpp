#include "cpu/vector/elementwise.h"

#include "cpu/ceilings.h"
#include "cpu/isa/parts.h"

namespace mimic {
namespace MIMIC_ISA {

template void activate(Activation, ptrdiff_t, const float*, float*, float*);
template void activate(Activation, ptrdiff_t, const double*, double*, double*);
template void update_range(int64_t, int64_t, const float*, const Parameter<float>&);
template void update_range(int64_t, int64_t, const double*, const Parameter<double>&);

const ElementwiseKernels<float> each_float32 = {dropout<float>, update<float>, multiply_adds<float>, sum_all<float>};
const ElementwiseKernels<double> each_float64 = {dropout<double>, update<double>, multiply_adds<double>,
                                                 sum_all<double>};

}  // namespace MIMIC_ISA
}  // namespace mimic
