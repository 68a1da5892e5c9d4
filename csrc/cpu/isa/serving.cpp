#include "cpu/isa/parts.h"
#include "cpu/serving/net.h"

namespace mimic {
namespace MIMIC_ISA {

void shallow_forward_few_rows(const ShallowForward<float>& f) { few_rows_forward(f); }

void serve(const Serving& f) {
#ifdef __AVX512F__
  if (f.vnni) return serve_with<true>(f);
#endif
  serve_with<false>(f);
}

}  // namespace MIMIC_ISA
}  // namespace mimic
