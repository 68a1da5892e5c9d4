// What csrc/simt knows of sm_90a, on one small kernel and the mistakes that it can be told to make.
#include "shallow/backward_units.cuh"
#include "tile/launch.cuh"
#include "tile/swizzled.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

enum Mistake : int64_t {
  kNone,
  kReadsSumsEarly,
  kChangesFragmentEarly,
  kOneWarpLeaves,
  kNobodyAwaitsCopy,
  kWritesOverBarrier,
  kArrivesTwice,
  kAwaitsPhaseThatNeverEnds,
  kOneLaneAddsElsewhere
};

constexpr int kRows = 128;
constexpr uint32_t kBox = kRows * kPieceRowBytes, kBarrier = 3 * kBox;

struct Probe {
  TensorMap a, b, c;
  const uint16_t* elements;  // of a
  float* along;              // (64, 128) = a b^T
  float* down;               // (64, 64) = 1 + a c
  int64_t mistake;
};

// This lane's part of a (rows, 16) as an A operand.
__device__ void load_fragment(uint32_t (&fragment)[4], const uint16_t* elements, int row, int t) {
  for (int r = 0; r < 4; ++r) {
    const uint16_t* from = elements + (row + 8 * (r % 2)) * 16 + 8 * (r / 2) + 2 * t;
    fragment[r] = from[0] | uint32_t(from[1]) << 16;
  }
}

// a (64 x 16), b (128 x 16), c (16 x 64).
__global__ void wide_products(const __grid_constant__ Probe p) {
  const int thread = threadIdx.x, g = thread % 32 / 4, t = thread % 4, first_row = thread / 32 * 16 + g;
  if (thread == 0) {
    mbarrier_init(kBarrier, 1);
    mbarrier_init_fence();
  }
  sync_block();
  if (thread == 0) {
    mbarrier_arrive_expecting(kBarrier, 3 * kBox);
    copy_box(0, p.a, 0, 0, kBarrier);
    copy_box(kBox, p.b, 0, 0, kBarrier);
    copy_box(2 * kBox, p.c, 0, 0, kBarrier);
    if (p.mistake == kArrivesTwice) mbarrier_arrive(kBarrier);
  }
  mbarrier_wait(kBarrier, 0);
  if (p.mistake == kAwaitsPhaseThatNeverEnds) mbarrier_wait(kBarrier, 1);
  sync_block();
  if (p.mistake == kNobodyAwaitsCopy && thread == 0) copy_box(2 * kBox, p.c, 0, 0, kBarrier);
  if (p.mistake == kWritesOverBarrier) store_shared(kBarrier, uint32_t(thread));
  if (p.mistake == kOneWarpLeaves && thread < 32) return;
  if (thread == 0) mbarrier_arrive(kBarrier);

  uint32_t fragment[4];
  load_fragment(fragment, p.elements, first_row, t);
  float along[16][4], down[8][4];
  for (int j = 0; j < 32; ++j) down[j / 4][j % 4] = 1;
  wgmma_fence();
  wgmma_along<Bf16>(along, piece_descriptor(0), piece_descriptor(kBox),
                    p.mistake == kOneLaneAddsElsewhere && thread == 77);
  wgmma_down<Bf16>(down, fragment, piece_descriptor(2 * kBox));
  wgmma_commit();
  if (p.mistake == kChangesFragmentEarly) fragment[thread % 4] ^= 0x00400040u;
  const float early = along[0][0];
  wgmma_wait<0>();
  wgmma_done(along);
  wgmma_done(down);
  if (p.mistake == kReadsSumsEarly) along[0][0] = early;
  for (int n = 0; n < 16; ++n)
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + 8 * (i / 2), column = 8 * n + 2 * t + i % 2;
      p.along[row * 128 + column] = along[n][i];
      if (n < 8) p.down[row * 64 + column] = down[n][i];
    }
}

struct NarrowProbe {
  TensorMap a, b;            // b in a box of 16 columns
  const uint16_t* elements;  // of a
  uint32_t* raw;             // (128, 8): b as it lies in shared memory
  float* along;              // (64, 128) = a b^T
  float* down;               // (64, 16) = 1 + a times the first 16 rows of b
};

__global__ void narrow_products(const __grid_constant__ NarrowProbe p) {
  const int thread = threadIdx.x, t = thread % 4, first_row = thread / 32 * 16 + thread % 32 / 4;
  if (thread == 0) {
    mbarrier_init(kBarrier, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expecting(kBarrier, kBox + kRows * kGroupBytes);
    copy_box(0, p.a, 0, 0, kBarrier);
    copy_box(kBox, p.b, 0, 0, kBarrier);
  }
  sync_block();
  mbarrier_wait(kBarrier, 0);
  for (int i = thread; i < kRows * 8; i += 128) p.raw[i] = load_shared<uint32_t>(kBox + i * 4);
  uint32_t fragment[4];
  load_fragment(fragment, p.elements, first_row, t);
  float along[16][4], down[2][4];
  for (int j = 0; j < 8; ++j) down[j / 4][j % 4] = 1;
  wgmma_fence();
  wgmma_along<Bf16>(along, piece_descriptor(0), narrow_descriptor(kBox), false);
  wgmma_down<Bf16>(down, fragment, narrow_descriptor(kBox));
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_done(along);
  wgmma_done(down);
  for (int n = 0; n < 16; ++n)
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + 8 * (i / 2), column = 8 * n + 2 * t + i % 2;
      p.along[row * 128 + column] = along[n][i];
      if (n < 2) p.down[row * 16 + column] = down[n][i];
    }
}

}  // namespace
}  // namespace mimic

using namespace mimic;

// pymimic_shallow_backward_units by the sm_90a kernel, also where H is so small that the plan is another.
extern "C" cudaError_t probe_backward_units_sm90a(const pymimic_shallow* p, const void* dy, int64_t lddy, float* dU,
                                                  float* db, float* dW) {
  const UnitGradients to = {{true, dU, int(p->k), {}}, {db != nullptr, db, 1, {}}, {true, dW, int(p->C), {}}};
  UnitPlan plan = {};
  plan.unit_blocks = int((p->H + kBackwardUnits - 1) / kBackwardUnits);
  plan.U_pieces = int(pieces_of(p->k, p->precision)), plan.W_pieces = int(pieces_of(p->C, p->precision));
  return run_backward_units_sm90a(*p, dy, lddy, to, plan, nullptr);
}

extern "C" cudaError_t probe_wide_products(const uint16_t* a, const uint16_t* b, const uint16_t* c, float* along,
                                           float* down, int64_t mistake) {
  Probe p = {{}, {}, {}, a, along, down, mistake};
  make_tensor_map(p.a, a, 16, 64, 16, PYMIMIC_BF16, kRows);
  make_tensor_map(p.b, b, 16, 128, 16, PYMIMIC_BF16, kRows);
  make_tensor_map(p.c, c, 64, 16, 64, PYMIMIC_BF16, kRows);
  return launch(wide_products, dim3(1), 128, kBarrier + 8, nullptr, p);
}

extern "C" cudaError_t probe_narrow_products(const uint16_t* a, const uint16_t* b, uint32_t* raw, float* along,
                                             float* down) {
  NarrowProbe p = {{}, {}, a, raw, along, down};
  make_tensor_map(p.a, a, 16, 64, 16, PYMIMIC_BF16, kRows);
  make_tensor_map(p.b, b, 16, 128, 16, PYMIMIC_BF16, kRows, kNarrowColumns);
  return launch(narrow_products, dim3(1), 128, kBarrier + 8, nullptr, p);
}
