// Compiled once per instruction set; MIMIC_ISA is the namespace and MIMIC_ISA_TABLE the table to define.
// No standard header with inline functions: the linker could merge one build's copy into another's.
#include "ceilings.h"
#include "elementwise.h"
#include "linear.h"
#include "narrow.h"
#include "serving.h"
#include "shallow.h"
#include "shallow_bf16.h"

#define MIMIC_STRING(x) #x
#define MIMIC_NAME(x) MIMIC_STRING(x)

namespace mimic {
namespace MIMIC_ISA {

template <class T>
void forward(const ShallowForward<T>& f) {
  const bool narrow = f.shape.B <= kNarrowRows && !f.keep.any() && !f.shape.mask.drops();
  narrow ? shallow_forward_narrow(f) : shallow_forward(f);
}

template <class T>
constexpr Kernels<T> kernels = {forward<T>, shallow_backward<T>, shallow_step<T>,  linear<T>, linear_backward<T>,
                                dropout<T>, update<T>,           multiply_adds<T>, sum_all<T>};

#if defined(__AVX512F__)
using BestPair = NativePair;
#else
using BestPair = Pair;
#endif

inline void forward_bf16(const ShallowForwardBf16& f) {
  f.native ? shallow_forward_bf16<BestPair>(f) : shallow_forward_bf16<Pair>(f);
}
inline void backward_bf16(const ShallowBackwardBf16& f) {
  f.native ? shallow_backward_bf16<BestPair>(f) : shallow_backward_bf16<Pair>(f);
}
inline void step_bf16(const ShallowStepBf16& f) {
  f.native ? shallow_step_bf16<BestPair>(f) : shallow_step_bf16<Pair>(f);
}

}  // namespace MIMIC_ISA

const Isa MIMIC_ISA_TABLE = {MIMIC_NAME(MIMIC_ISA),   MIMIC_ISA::kernels<float>,    MIMIC_ISA::kernels<double>,
                             MIMIC_ISA::forward_bf16, MIMIC_ISA::backward_bf16,     MIMIC_ISA::step_bf16,
                             MIMIC_ISA::serve_any,    MIMIC_ISA::bf16_multiply_adds};

}  // namespace mimic
