// The tables of one build: its own, and those with further ways to multiply bfloat16.
#include "cpu/isa/parts.h"

#define MIMIC_STRING(x) #x
#define MIMIC_NAME(x) MIMIC_STRING(x)

namespace mimic {
namespace MIMIC_ISA {

constexpr Kernels<float> float32 = {&shallow_float32, &linear_float32, &each_float32};
constexpr Kernels<double> float64 = {&shallow_float64, &linear_float64, &each_float64};

constexpr Isa isa = {MIMIC_NAME(MIMIC_ISA), float32, float64, {&pairs, nullptr}, {}, serve, nullptr};

#if defined(MIMIC_X86) && defined(__AVX512F__)
constexpr Isa isa_bf16 = {"avx512_bf16", float32, float64, {&native_pairs, nullptr}, {}, serve, pair_multiply_adds};
constexpr Isa isa_amx = {"amx", float32,           float64, {&tiles, &linear_tiles}, {&tiles_x3, &linear_tiles_x3},
                         serve, tile_multiply_adds};
#elif !defined(__AVX2__)
constexpr Isa isa_amx_model = {"amx_model", float32, float64, {&tiles, &linear_tiles}, {&tiles_x3, &linear_tiles_x3},
                               serve,       nullptr};
#endif

}  // namespace MIMIC_ISA
}  // namespace mimic
