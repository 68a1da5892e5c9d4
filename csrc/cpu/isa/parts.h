// The files of this folder are compiled once for each instruction set, in the namespace MIMIC_ISA; this is what each
// leaves to table.cpp. They include no standard header with inline functions: the linker could merge one build's copy
// into another's.
#pragma once

#include "cpu/kernels.h"

namespace mimic {
namespace MIMIC_ISA {

extern const ShallowKernels<float> shallow_float32;    // shallow_float32.cpp
extern const ShallowKernels<double> shallow_float64;   // float64.cpp
extern const LinearKernels<float> linear_float32;      // linear.cpp
extern const LinearKernels<double> linear_float64;     // float64.cpp
extern const ElementwiseKernels<float> each_float32;   // elementwise.cpp
extern const ElementwiseKernels<double> each_float64;  // elementwise.cpp

// In files of their names:
extern const ShallowKernels<float, Source> pairs, native_pairs, tiles, tiles_x3;
extern const LinearKernels<float> linear_tiles, linear_tiles_x3;

void serve(const Serving& f);                                   // serving.cpp
void shallow_forward_few_rows(const ShallowForward<float>& f);  // serving.cpp

// elementwise.cpp, in the AVX-512 build
double pair_multiply_adds(int64_t steps);
double tile_multiply_adds(int64_t steps);

}  // namespace MIMIC_ISA
}  // namespace mimic
