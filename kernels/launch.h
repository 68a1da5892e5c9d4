// The CUDA kernels as functions of pointers, sizes and a stream. Knows no Python and no framework.
//
// A launcher returns the cudaError_t of its launches, or cudaErrorInvalidValue where a size is beyond the limits below
// or an operand is misaligned. It allocates nothing, synchronises nothing, and reads its structs before it returns.
// Where it takes a workspace, the function beside it whose name ends in _plan or _workspace says how many bytes.
// Pointers are device pointers unless a comment says otherwise. The same arguments give the same bits on every run on a
// device.
//
// An OPERAND of a matrix product is a padded array (rows, ld): its base is 16-byte aligned, ld is a multiple of 16
// elements, and each row has zeros from its true columns up to ld. All other arrays are float32, C-contiguous and
// unpadded.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "common/optimizer.h"

#define PYMIMIC_MAX_K 2048  // columns of z and U
#define PYMIMIC_MAX_C 1024  // columns of W and y

extern "C" {

// How a matrix product is computed, and so the type of its operands. Sums are always float32.
enum pymimic_precision {
  PYMIMIC_BF16,  // bfloat16 operands
  PYMIMIC_FP16,  // IEEE half operands
  PYMIMIC_TF32,  // float32 operands, rounded to 10 bits of mantissa inside the tensor core
  PYMIMIC_FP32   // float32 operands, true float32 accuracy
};

enum pymimic_activation { PYMIMIC_RELU, PYMIMIC_IDENTITY, PYMIMIC_TANH, PYMIMIC_SIGMOID, PYMIMIC_GELU };

// A dropout mask. Seed and offset may be in device memory: a CUDA graph can then be replayed with others.
struct pymimic_mask {
  uint32_t threshold;    // a unit is kept where its random byte is below the threshold; 256 keeps all units
  int64_t seed, offset;  // used where the pointers are null
  const int64_t* device_seed;
  const int64_t* device_offset;
  int64_t row, unit;  // the origin: multiples of 16 and 32
};

// What a launcher will do. The launcher itself follows it, so that nothing is decided twice.
struct pymimic_plan {
  const char* kernel;  // the source file without its ending: the kernel, and the chip that it is for
  int row_block;       // rows that a block owns, or that it takes at a time (backward_units)
  int slab;            // hidden units that a block takes at a time, or that it owns (backward_units)
  int splits;          // parts of H whose sums are added afterwards, in a fixed order; the multiprocessors have a say
  int column_chunks;   // blocks that share the output's columns
  int in_place;        // whether a step may write the arrays that it reads (backward_units)
  size_t workspace;    // bytes
};

// ---- The shallow net: y = h W + c with h = mask(f(z U^T + b)); h (B x H) is never written --------------------------

struct pymimic_shallow {
  int64_t B, k, H, C;
  pymimic_precision precision;
  pymimic_activation activation;
  const void* z;  // operand (B, ldz), k columns
  int64_t ldz;
  const void* U;  // operand (H, ldu), k columns
  int64_t ldu;
  const float* b;  // (H,)
  const void* W;   // operand (H, ldw), C columns
  int64_t ldw;
  pymimic_mask mask;
  int splits;  // parts of H; 0: the plan chooses
};

// y (B, C) float32.
pymimic_plan pymimic_shallow_forward_plan(const pymimic_shallow* p);
cudaError_t pymimic_shallow_forward(const pymimic_shallow* p, const float* c, float* y, void* workspace,
                                    cudaStream_t stream);

// The splits for prediction, from k, H and C alone: with them a row's bits do not depend on how many rows there are.
int pymimic_shallow_forward_splits(const pymimic_shallow* p);

// The backward kernels take every precision but PYMIMIC_FP16, whose range is too small for gradients.
//
// dz (B, k) float32 = da U with da = (dy W^T) f'(a) mask; dy is an operand (B, lddy) of C columns. h is made again.
pymimic_plan pymimic_shallow_backward_rows_plan(const pymimic_shallow* p);
cudaError_t pymimic_shallow_backward_rows(const pymimic_shallow* p, const void* dy, int64_t lddy, float* dz,
                                          void* workspace, cudaStream_t stream);

// dU (H, k), db (H,), dW (H, C), float32: da^T z, column sums of da, h^T dy. Null where not needed.
pymimic_plan pymimic_shallow_backward_units_plan(const pymimic_shallow* p, int needs_dU, int needs_dW);
cudaError_t pymimic_shallow_backward_units(const pymimic_shallow* p, const void* dy, int64_t lddy, float* dU, float* db,
                                           float* dW, cudaStream_t stream);

// An array that a step updates, with its slots: momentum for sgd, mean and square for adamw.
struct pymimic_parameter {
  float* value;  // float32 master, C-contiguous
  float* slot[2];
  void* working;  // operand rewritten from the new value, in the problem's precision; null where there is none
  int64_t ld;     // of `working`
  mimic::Update<float> update;
  const mimic::Update<float>* device_update;  // read instead of `update` where it is not null: for CUDA graphs
};

// The same gradients, used at once and not stored: updates U, b and W (null where frozen). p->U, p->W and p->b are the
// weights of the forward pass. A step may write what p reads (U->working == p->U, b->value == p->b, ...) only where
// in_place is 1 in pymimic_shallow_backward_units_plan(p, 1, 1); elsewhere the caller needs two buffers. b has no
// `working`: where it cannot be written in place, p->b is a copy.
cudaError_t pymimic_shallow_backward_step(const pymimic_shallow* p, const void* dy, int64_t lddy,
                                          const pymimic_parameter* U, const pymimic_parameter* b,
                                          const pymimic_parameter* W, cudaStream_t stream);

// The plain step, from a gradient (rows, columns) in memory: of V, of c, of the layers of a deep net.
cudaError_t pymimic_optimizer_update(const pymimic_parameter* parameter, pymimic_precision working_precision,
                                     const float* grad, int64_t rows, int64_t columns, cudaStream_t stream);

// ---- Where k or C is long: h and da of some hidden units, between products by cuBLAS --------------------------------

// Each array of B rows has a 16-byte aligned base and `ld` elements from row to row, a multiple of 16. Elements beyond
// a row's `units` are not touched.
struct pymimic_hidden {
  int64_t B, units, ld;
  pymimic_precision precision;  // of h and da, not PYMIMIC_FP16
  pymimic_activation activation;
  pymimic_mask mask;
  const float* a;  // z U^T; a backward pass with `saved` does not need it
  const float* b;  // (units,)
  void* saved;     // h for relu, z U^T + b for others; or null
  pymimic_precision saved_precision;
};

// Makes h = mask(f(a + b)) and `saved`, where they are not null. h may be a.
cudaError_t pymimic_hidden_forward(const pymimic_hidden* p, void* h, cudaStream_t stream);

// da = dh f'(a + b) mask, db (units,) = its column sums, and h once more; db and h may be null. da may be dh; h may be
// a or saved.
size_t pymimic_hidden_backward_workspace(int64_t B, int64_t units);
cudaError_t pymimic_hidden_backward(const pymimic_hidden* p, const float* dh, void* h, void* da, float* db,
                                    void* workspace, cudaStream_t stream);

// ---- Serving a few rows, which the bandwidth of the weights bounds --------------------------------------------------

enum pymimic_served { PYMIMIC_SERVE_BF16, PYMIMIC_SERVE_INT8, PYMIMIC_SERVE_FP32 };

// The whole net, y = f((((x - mean) scale) V^T) U^T + b) W + c.
struct pymimic_serving {
  int64_t B, D, k, H, C;
  pymimic_served weights;
  pymimic_activation activation;
  const float* x;     // (B, D)
  const float* mean;  // (D,), or null with `scale`: x as it is
  const float* scale;
  const void* V;  // operand (k, ldv) of D columns; null where there is no bottleneck, and k is D
  int64_t ldv;
  const void* U;  // operand (H, ldu) of k columns
  int64_t ldu;
  const void* W;  // operand (H, ldw) of C columns
  int64_t ldw;
  const float* V_scale;  // (k,), int8 only: row i of the weights is V_scale[i] V[i]
  const float* U_scale;  // (H,), likewise
  const float* W_scale;  // (H,), likewise
  const float* b;        // (H,)
  const float* c;        // (C,)
};

// y (B, C) float32, without dropout, a row block at a time: 8 rows, or as many as shared memory has room for (0 where
// not even one fits). A row's bits depend on no other row.
pymimic_plan pymimic_serve_plan(const pymimic_serving* p);
cudaError_t pymimic_serve(const pymimic_serving* p, float* y, void* workspace, cudaStream_t stream);

// ---- The bottleneck of a prediction --------------------------------------------------------------------------------

// z (B, k) = x (B, D) V^T, in float32 throughout. A row's bits depend on no other row.
size_t pymimic_bottleneck_workspace(int64_t B, int64_t D, int64_t k);
cudaError_t pymimic_bottleneck(const float* x, const float* V, int64_t B, int64_t D, int64_t k, float* z,
                               void* workspace, cudaStream_t stream);

// ---- Around a product by cuBLAS: out = mask(f(product + bias)) ------------------------------------------------------

// product and out (rows, units), out may be product; bias (units,) or null.
cudaError_t pymimic_linear_dropout(const float* product, const float* bias, float* out, int64_t rows, int64_t units,
                                   pymimic_activation activation, pymimic_mask mask, cudaStream_t stream);

// da = dout f'(a) mask (rows, units), da may be dout; dbias (units,) = its column sums, or null. f' is computed from
// `out`, the layer's result; for gelu `out` is the product, to which the kernel adds the bias.
size_t pymimic_linear_dropout_backward_workspace(int64_t rows, int64_t units);
cudaError_t pymimic_linear_dropout_backward(const float* dout, const float* out, const float* bias, float* da,
                                            float* dbias, int64_t rows, int64_t units, pymimic_activation activation,
                                            pymimic_mask mask, void* workspace, cudaStream_t stream);

// sums (columns,) of a (rows, columns), in a fixed order.
size_t pymimic_column_sums_workspace(int64_t rows, int64_t columns);
cudaError_t pymimic_column_sums(const float* a, float* sums, int64_t rows, int64_t columns, void* workspace,
                                cudaStream_t stream);

// out = x times the mask, x and out (outer, rows, units) of float32; out may be x. The backward pass is the same.
cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                pymimic_mask mask, cudaStream_t stream);

// ---- Losses: `loss` is one float in device memory, dy (B, C) = dloss/dy; an empty batch has loss 0 ------------------

size_t pymimic_loss_workspace(int64_t B, int64_t C);

// sum_b w_b |y_b - t_b|^2 / (2 B); weights (B,) or null for ones.
cudaError_t pymimic_mimic_loss(const float* y, const float* t, const float* weights, int64_t B, int64_t C, float* loss,
                               float* dy, void* workspace, cudaStream_t stream);

// Mean over rows of w_b (-log softmax(y_b)[labels_b]); labels (B,) in [0, C): the caller checks.
cudaError_t pymimic_cross_entropy(const float* y, const int64_t* labels, const float* weights, int64_t B, int64_t C,
                                  float* loss, float* dy, void* workspace, cudaStream_t stream);

// temperature^2 times the mean over rows of w_b KL(softmax(t / temperature) || softmax(y / temperature)). t may be
// -infinity, for a class that is ruled out.
cudaError_t pymimic_distillation_loss(const float* y, const float* t, float temperature, const float* weights,
                                      int64_t B, int64_t C, float* loss, float* dy, void* workspace,
                                      cudaStream_t stream);

// ---- Operands -------------------------------------------------------------------------------------------------------

// Makes an operand `to` (rows, ld_to) of to_precision from an array (rows, columns) with ld_from elements from row to
// row, in the element type of from_precision.
cudaError_t pymimic_pack(const void* from, pymimic_precision from_precision, int64_t ld_from, void* to,
                         pymimic_precision to_precision, int64_t ld_to, int64_t rows, int64_t columns,
                         cudaStream_t stream);

// ---- What ran -------------------------------------------------------------------------------------------------------

// The kernels that this thread launched since it last asked, at most the last 16, as cudaFuncGetAttributes takes them.
// Returns how many there are.
#define PYMIMIC_RECENT_KERNELS 16
int pymimic_recent_kernels(const void* kernels[PYMIMIC_RECENT_KERNELS]);

}  // extern "C"
