// Compiled once per instruction set; MIMIC_ISA is the namespace and MIMIC_ISA_TABLE the table to define.
// No standard header with inline functions: the linker could merge one build's copy into another's.
#include "cpu/amx/linear.h"
#include "cpu/ceilings.h"
#include "cpu/serving/few_rows.h"
#include "cpu/serving/net.h"
#include "cpu/shallow.h"
#include "cpu/shallow_rounded.h"
#include "cpu/vector/elementwise.h"

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
constexpr Kernels<T> kernels = {
    forward<T>, shallow_backward<T>, shallow_step<T>, linear<ByVectors, T>, linear_backward<ByVectors, T>, dropout<T>,
    update<T>,  multiply_adds<T>,    sum_all<T>};

template <class Pairs>
constexpr Isa isa_with_pairs(const char* name, double (*bf16_multiply_adds)(int64_t)) {
  constexpr BfloatKernels bf16 = {rounded_kernels<ByPairs<Pairs>>, nullptr, nullptr};
  return {name, kernels<float>, kernels<double>, bf16, {}, serve_any, bf16_multiply_adds};
}

template <class F>
constexpr BfloatKernels tile_kernels = {rounded_kernels<ByTiles<F>>, linear<ByTiledBlocks<F>, float>,
                                        linear_backward<ByTiledBlocks<F>, float>};
template <class Tiles>
constexpr Isa isa_with_tiles(const char* name, double (*bf16_multiply_adds)(int64_t)) {
  return {name,
          kernels<float>,
          kernels<double>,
          tile_kernels<TileFormat<Tiles, 1>>,
          tile_kernels<TileFormat<Tiles, 3>>,
          serve_any,
          bf16_multiply_adds};
}

}  // namespace MIMIC_ISA

using namespace MIMIC_ISA;

const Isa MIMIC_ISA_TABLE = isa_with_pairs<Pair>(MIMIC_NAME(MIMIC_ISA), nullptr);

// Further tables of the same build: other ways to multiply bfloat16.
#if defined(MIMIC_X86) && defined(__AVX512F__)
const Isa isa_avx512_bf16 = isa_with_pairs<NativePair>("avx512_bf16", pair_multiply_adds);
const Isa isa_amx = isa_with_tiles<AmxTiles>("amx", tile_multiply_adds);
#elif !defined(__AVX2__)
const Isa isa_amx_model = isa_with_tiles<ModelledTiles>("amx_model", nullptr);
#endif

}  // namespace mimic
