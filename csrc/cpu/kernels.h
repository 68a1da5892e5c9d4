// What the compiled core offers, for one type and one instruction set: plain structs and function pointers.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/activation.h"
#include "common/optimizer.h"
#include "cpu/plan.h"

namespace mimic {

struct Mask {
  uint32_t threshold;  // a unit is kept whose byte is below; 256 keeps all
  uint64_t seed;
  uint32_t offset;
  int64_t row, unit;  // where this block lies in the whole

  bool drops() const { return threshold < 256; }
  double scale() const { return 256.0 / threshold; }
};

// Sizes and plan of z (B, k) -> h (B, H) -> y (B, C).
struct ShallowShape : ShallowPlan {
  int64_t B, k, H, C;
  Activation activation;
  Mask mask;
};

// h for the backward pass, [slab][panel][unit][32]: for other activations than relu the pre-activation. In full, or in
// bfloat16, or (both null) not at all.
template <class T>
struct SavedH {
  T* full;
  uint16_t* bf16;
  bool any() const { return full || bf16; }
};

// A matrix whose numbers become bfloat16, or sums of three; sums of their products are float32.
struct Source {
  Source(const float* values) : values(values), bfloat16(false) {}
  Source(const uint16_t* values) : values(values), bfloat16(true) {}

  const void* values;
  bool bfloat16;  // already
};

// Operands M of products are `const T*`, or `Source` where T is float.
template <class T, class M = const T*>
struct ShallowForward {
  ShallowShape shape;
  M z, U, W;
  const T *b, *c;
  T* y;
  SavedH<T> save;
};

template <class T, class M = const T*>
struct ShallowBackward {
  ShallowShape shape;
  M dy, z, U, W;
  const T* b;
  SavedH<T> saved;
  T *dz, *dU, *db, *dW, *dc;  // each may be null
};

// As ShallowBackward; U, b, W and c and their optimizer slots are updated, gradients are not stored.
template <class T>
struct Parameter {
  T* value;
  T* slot[2];  // null where the rule has none
  Update<T> update;
};
template <class T, class M = const T*>
struct ShallowStep {
  ShallowShape shape;
  M dy, z;
  SavedH<T> saved;
  T *dz, *dc;  // written; dz may be null
  Parameter<T> U, b, W, c;
};

// out (B, O) = dropout(f(x (B, I) weight^T + bias)), weight (O, I).
template <class T>
struct Linear {
  int64_t B, I, O;
  Activation activation;
  Mask mask;
  const T *x, *weight, *bias;  // bias may be null
  T* out;
};

template <class T>
struct LinearBackward {
  Linear<T> layer;  // `out` is read
  const T* dout;
  T* da;                    // room for (B, O), or null where da is dout itself
  T *dx, *dweight, *dbias;  // each may be null
};

// Weights for prediction alone. float32: (rows, columns) as they are. The others are laid out by
// pymimic/backends/cpu_serving.py:
//   panels    float32; U and V: [rows / 32][columns][32]; W: (rows, columns rounded up to 16)
//   bfloat16  U and V: [rows / 32][columns][16] words, unit i of the 32 in a word's low half, i + 16 in the high one
//             W: [rows / 2][columns rounded up to 16] words, the first of two rows in the low half
//   int8      U and V: [rows / 16][columns / 4][16][4], the sum of each row's values in `total`
//             W: [rows / 4][columns rounded up to 16][4], in `total` for each slab the sum of each column's values
//             each row has a scale
enum class Storage : int { float32, panels, bfloat16, int8 };
constexpr int64_t kMostServedUnits = 2048;  // in a slab
struct StoredMatrix {
  const void* values;
  const float* scale;
  const int32_t* total;
};

// y = f((x - mean) scale V^T U^T + b) W + c.
struct Serving {
  Storage storage;
  bool vnni;  // the machine has AVX512_VNNI
  int64_t B, D, k, H, C, slab;
  Activation activation;
  StoredMatrix V, U, W;               // V null: no bottleneck, k = D
  const float *b, *c, *mean, *scale;  // mean and scale may be null
  const float* x;
  float* y;
};

template <class T, class M = const T*>
struct ShallowKernels {
  void (*forward)(const ShallowForward<T, M>&);
  void (*backward)(const ShallowBackward<T, M>&);
  void (*step)(const ShallowStep<T, M>&);
};
template <class T>
struct LinearKernels {
  void (*forward)(const Linear<T>&);
  void (*backward)(const LinearBackward<T>&);
};
template <class T>
struct ElementwiseKernels {
  void (*dropout)(const T* x, T* out, int64_t outer, int64_t rows, int64_t units, const Mask& mask);
  void (*update)(int64_t size, const T* grad, const Parameter<T>& parameter);
  double (*multiply_adds)(int64_t steps, T factor, T term);  // see ceilings.h
  T (*sum_all)(int64_t size, const T* x);
};
template <class T>
struct Kernels {
  const ShallowKernels<T>* shallow;
  const LinearKernels<T>* linear;
  const ElementwiseKernels<T>* elementwise;
};

// All that multiplies numbers taken as so many bfloat16: null where the instruction set cannot.
struct Bf16Kernels {
  const ShallowKernels<float, Source>* shallow;
  const LinearKernels<float>* linear;
};

struct Isa {
  const char* name;
  Kernels<float> f32;
  Kernels<double> f64;
  Bf16Kernels bf16;    // one for each number, rounded; layers on tiles only
  Bf16Kernels bf16x3;  // three, on tiles only
  void (*serve)(const Serving&);
  double (*bf16_multiply_adds)(int64_t steps);  // null where the machine has no instructions for them
};

// One table for each way to run. The AVX-512 build has one more with vdpbf16ps and one with tiles; the baseline's has
// one with a model of tiles, for tests.
namespace baseline {
extern const Isa isa, isa_amx_model;
}
namespace avx2 {
extern const Isa isa;
}
namespace avx512 {
extern const Isa isa, isa_bf16, isa_amx;
}

// Scratch memory of the calling thread, aligned to 64 bytes and kept for the next call; throws std::bad_alloc.
void* scratch(size_t bytes);

}  // namespace mimic
