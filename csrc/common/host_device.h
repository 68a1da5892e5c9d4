// Functions on which CPU and GPU must agree are written once, for both compilers.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define MIMIC_HD __host__ __device__ __forceinline__
#else
#define MIMIC_HD static inline __attribute__((always_inline))
#endif
