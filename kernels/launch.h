// The CUDA kernels as plain C functions: pointers, sizes, a stream. Knows no Python and no framework.
//
// Each returns the cudaError_t of its launches (cudaErrorInvalidValue for sizes beyond the limits below or a misaligned
// operand), allocates nothing and synchronises nothing. Where a function takes a workspace, the one beside it whose
// name ends in _workspace says how many bytes; the answer depends on sizes alone. Pointers are device pointers unless a
// comment says otherwise; structs are read before a launcher returns. The same arguments give the same bits on every
// run.
//
// An OPERAND of a matrix product is a padded array: (rows, ld), base 16-byte aligned, ld a multiple of 16 elements, and
// zeros from the true column count up to ld. Everything else is float32, C-contiguous and unpadded.
#pragma once

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#define PYMIMIC_MAX_K 2048  // columns of z and U
#define PYMIMIC_MAX_C 1024  // columns of W and y

#ifdef __cplusplus
extern "C" {
#endif

// How a matrix product is computed, and with it the type of its operands; sums are float32 always.
enum pymimic_precision {
  PYMIMIC_BF16,  // bfloat16 operands
  PYMIMIC_FP16,  // IEEE half operands
  PYMIMIC_TF32,  // float32 operands, rounded to 10 bits of mantissa inside the tensor core
  PYMIMIC_FP32   // float32 operands, true float32 accuracy
};

enum pymimic_activation { PYMIMIC_RELU, PYMIMIC_IDENTITY, PYMIMIC_TANH, PYMIMIC_SIGMOID, PYMIMIC_GELU };

// The mask's numbers; seed and offset may live in device memory, so that a CUDA graph can be replayed with others.
struct pymimic_mask {
  uint32_t keep;         // a unit is kept when its random byte < keep; 256 keeps all
  int64_t seed, offset;  // used where the pointers are null
  const int64_t* device_seed;
  const int64_t* device_offset;
  int64_t row, unit;  // where this block lies in the whole: multiples of 16 and 32
};

// ---- The shallow net: y = h W + c with h = mask(f(z U^T + b)); h (B x H) is never written --------------------------

struct pymimic_shallow {
  int64_t B, k, H, C;
  enum pymimic_precision precision;
  enum pymimic_activation activation;
  const void* z;  // operand (B, ldz), k columns
  int64_t ldz;
  const void* U;  // operand (H, ldu), k columns
  int64_t ldu;
  const float* b;  // (H,)
  const void* W;   // operand (H, ldw), C columns
  int64_t ldw;
  struct pymimic_mask mask;
  int splits;  // parts of H that are summed apart, then together in fixed order; 0: chosen from B, k, H, C
};

// What `splits` is for a single row, whatever p->B and p->splits: given for any number of rows, a row's bits depend on
// no other row.
int pymimic_shallow_forward_splits(const struct pymimic_shallow* p);

// y (B, C) float32. The bits of a row depend on no other row once `splits` is given.
size_t pymimic_shallow_forward_workspace(const struct pymimic_shallow* p);
cudaError_t pymimic_shallow_forward(const struct pymimic_shallow* p, const float* c, float* y, void* workspace,
                                    cudaStream_t stream);

// The backward kernels take every precision but PYMIMIC_FP16, whose range is too small for gradients.
//
// dz (B, k) float32 = da U with da = (dy W^T) f'(a) mask; dy is an operand (B, lddy) of C columns. h is made again.
size_t pymimic_shallow_backward_rows_workspace(const struct pymimic_shallow* p);
cudaError_t pymimic_shallow_backward_rows(const struct pymimic_shallow* p, const void* dy, int64_t lddy, float* dz,
                                          void* workspace, cudaStream_t stream);

// dU (H, k), db (H,), dW (H, C), float32: da^T z, column sums of da, h^T dy. Null where not needed. dc:
// pymimic_column_sums.
cudaError_t pymimic_shallow_backward_units(const struct pymimic_shallow* p, const void* dy, int64_t lddy, float* dU,
                                           float* db, float* dW, cudaStream_t stream);

// One optimizer step's numbers, the same for every element of an array: Update<float> of csrc/common/optimizer.h.
enum pymimic_rule { PYMIMIC_SGD, PYMIMIC_ADAMW };
struct pymimic_update {
  enum pymimic_rule rule;
  int nesterov;
  float learning_rate, weight_decay;
  float momentum;      // sgd; 0 means that there is no slot
  float beta1, beta2;  // adamw ...
  float epsilon;
  float step_size;            // learning_rate / (1 - beta1^t)
  float inverse_correction2;  // 1 / (1 - beta2^t)
};

// An array that a step updates in place, with its slots: momentum for sgd, mean and square for adamw.
struct pymimic_parameter {
  float* value;  // float32 master, C-contiguous
  float* slot[2];
  void* working;  // operand rewritten from the new value, in the problem's precision; null where there is none
  int64_t ld;     // of `working`
  struct pymimic_update update;
  const struct pymimic_update* device_update;  // read instead of `update` where it is not null: for CUDA graphs
};

// The same gradients, used at once and not stored: updates U, b and W (null where frozen). p->U, p->W and p->b are the
// weights as they were when the forward pass ran. What a step writes may be what p reads (U->working == p->U,
// b->value == p->b, ...) only where pymimic_shallow_step_in_place says 1; elsewhere the caller keeps two buffers.
// b has no `working`: where it must not be written in place, p->b is a copy.
int pymimic_shallow_step_in_place(const struct pymimic_shallow* p);
cudaError_t pymimic_shallow_backward_step(const struct pymimic_shallow* p, const void* dy, int64_t lddy,
                                          const struct pymimic_parameter* U, const struct pymimic_parameter* b,
                                          const struct pymimic_parameter* W, cudaStream_t stream);

// The plain step, for arrays whose gradient (rows, columns) is at hand: V, c, the layers of a deep net.
cudaError_t pymimic_optimizer_update(const struct pymimic_parameter* parameter,
                                     enum pymimic_precision working_precision, const float* grad, int64_t rows,
                                     int64_t columns, cudaStream_t stream);

// ---- Where k or C is long: h and da of some hidden units, between products that cuBLAS makes ------------------------

// All arrays of B rows have `ld` elements from row to row, a multiple of 16, and 16-byte aligned bases; elements behind
// the `units` of a row are not touched.
struct pymimic_hidden {
  int64_t B, units, ld;
  enum pymimic_precision precision;  // of h and da, not PYMIMIC_FP16
  enum pymimic_activation activation;
  struct pymimic_mask mask;
  const float* a;  // z U^T; a backward pass that has `kept` does without
  const float* b;  // (units,)
  void* kept;      // h for relu, z U^T + b for others; or null
  enum pymimic_precision kept_precision;
};

// h = mask(f(a + b)), unless it is null, and `kept`. h may be a.
cudaError_t pymimic_hidden_forward(const struct pymimic_hidden* p, void* h, cudaStream_t stream);

// da = dh f'(a + b) mask, db (units,) = its column sums, and h once more; db and h may be null. da may be dh, h may be
// a or kept.
size_t pymimic_hidden_backward_workspace(int64_t B, int64_t units);
cudaError_t pymimic_hidden_backward(const struct pymimic_hidden* p, const float* dh, void* h, void* da, float* db,
                                    void* workspace, cudaStream_t stream);

// ---- Serving: few rows, bound by the bandwidth of the weights -------------------------------------------------------

enum pymimic_served { PYMIMIC_SERVE_BF16, PYMIMIC_SERVE_INT8, PYMIMIC_SERVE_FP32 };

// The whole net, y = f((((x - mean) scale) V^T) U^T + b) W + c.
struct pymimic_serving {
  int64_t B, D, k, H, C;
  enum pymimic_served weights;
  enum pymimic_activation activation;
  const float* x;     // (B, D)
  const float* mean;  // (D,), or null with `scale`: x as it is
  const float* scale;
  const void* V;  // operand (k, ldv) of D columns; null where there is no bottleneck, and k is D
  int64_t ldv;
  const void* U;  // operand (H, ldu) of k columns
  int64_t ldu;
  const void* W;  // operand (H, ldw) of C columns
  int64_t ldw;
  const float* V_scale;  // (k,), int8 only: the weights of unit i are V_scale[i] V[i]
  const float* U_scale;  // (H,), in the same way
  const float* W_scale;  // (H,)
  const float* b;        // (H,)
  const float* c;        // (C,)
};

// y (B, C) float32, without dropout, 8 rows at a time. A row's bits depend on no other row.
size_t pymimic_serve_workspace(const struct pymimic_serving* p);
cudaError_t pymimic_serve(const struct pymimic_serving* p, float* y, void* workspace, cudaStream_t stream);

// ---- The bottleneck of a prediction --------------------------------------------------------------------------------

// z (B, k) = x (B, D) V^T, float32 all through. A row's bits depend on no other row.
size_t pymimic_bottleneck_workspace(int64_t B, int64_t D, int64_t k);
cudaError_t pymimic_bottleneck(const float* x, const float* V, int64_t B, int64_t D, int64_t k, float* z,
                               void* workspace, cudaStream_t stream);

// ---- Around a product that cuBLAS makes: out = mask(f(product + bias)) ---------------------------------------------
// factorized_matmul is two such layers: (x V^T) without a kernel of ours, then this one without a mask.

// product and out (rows, units), out may be product; bias (units,) or null.
cudaError_t pymimic_linear_dropout(const float* product, const float* bias, float* out, int64_t rows, int64_t units,
                                   enum pymimic_activation activation, struct pymimic_mask mask, cudaStream_t stream);

// da = dout f'(a) mask (rows, units), da may be dout; dbias (units,) = its column sums, or null. `out` is the layer's
// result, from which f' is taken, except for gelu: there it is the product, and bias is added to it.
size_t pymimic_linear_dropout_backward_workspace(int64_t rows, int64_t units);
cudaError_t pymimic_linear_dropout_backward(const float* dout, const float* out, const float* bias, float* da,
                                            float* dbias, int64_t rows, int64_t units,
                                            enum pymimic_activation activation, struct pymimic_mask mask,
                                            void* workspace, cudaStream_t stream);

// sums (columns,) of a (rows, columns), in a fixed order.
size_t pymimic_column_sums_workspace(int64_t rows, int64_t columns);
cudaError_t pymimic_column_sums(const float* a, float* sums, int64_t rows, int64_t columns, void* workspace,
                                cudaStream_t stream);

// out = x times the mask, x and out (outer, rows, units) of float32; out may be x. Its own backward pass.
cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                struct pymimic_mask mask, cudaStream_t stream);

// ---- Losses: `loss` is one float in device memory, dy (B, C) = dloss/dy; an empty batch has loss 0 ------------------

size_t pymimic_loss_workspace(int64_t B, int64_t C);

// sum_b w_b |y_b - t_b|^2 / (2 B); weights (B,) or null for ones.
cudaError_t pymimic_mimic_loss(const float* y, const float* t, const float* weights, int64_t B, int64_t C, float* loss,
                               float* dy, void* workspace, cudaStream_t stream);

// Mean over rows of w_b (-log softmax(y_b)[labels_b]); labels (B,) in [0, C): the caller checks.
cudaError_t pymimic_cross_entropy(const float* y, const int64_t* labels, const float* weights, int64_t B, int64_t C,
                                  float* loss, float* dy, void* workspace, cudaStream_t stream);

// temperature^2 times the mean over rows of KL(softmax(t / temperature) || softmax(y / temperature)).
cudaError_t pymimic_distillation_loss(const float* y, const float* t, float temperature, int64_t B, int64_t C,
                                      float* loss, float* dy, void* workspace, cudaStream_t stream);

// ---- Operands -------------------------------------------------------------------------------------------------------

// `to`, an operand (rows, ld_to) for precision `to_precision`, from (rows, columns) with row stride ld_from; the
// element types are those of operands of the two precisions.
cudaError_t pymimic_pack(const void* from, enum pymimic_precision from_precision, int64_t ld_from, void* to,
                         enum pymimic_precision to_precision, int64_t ld_to, int64_t rows, int64_t columns,
                         cudaStream_t stream);

// ---- What ran -------------------------------------------------------------------------------------------------------

// The kernels that this thread launched since it last asked, at most the last 16, as cudaFuncGetAttributes takes them.
// Returns how many there are.
#define PYMIMIC_RECENT_KERNELS 16
int pymimic_recent_kernels(const void* kernels[PYMIMIC_RECENT_KERNELS]);

#ifdef __cplusplus
}
#endif
