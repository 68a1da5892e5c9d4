// What shallow_tiles.h works on: a slab of weights as tiles, and blocks of h and da, 32 units by 32 rows, which leave
// their block as tiles only.
#pragma once

#include "shallow.h"
#include "tile_forms.h"

namespace mimic {
namespace MIMIC_ISA {

static_assert(kStep == kPanel && kPanel % kTile == 0 && kStep == kMaskUnits, "blocks are square, and those of masks");

// One slab of U and W, in the forms that a pass takes.
template <class F>
struct TiledSlab {
  TileMatrix U, U_turned, W, W_turned;

  static TiledSlab take(Arena& arena, const ShallowShape& s, bool back) {
    const int64_t blocks = steps_of(s.slab), none = 0;
    return {take_tiles<F>(arena, 2 * blocks, steps_of(s.k)), take_tiles<F>(arena, back ? tiles_of(s.k) : none, blocks),
            take_tiles<F>(arena, back ? 2 * blocks : none, steps_of(s.C)),
            take_tiles<F>(arena, back ? none : tiles_of(s.C), blocks)};
  }

  // Blocks [begin, end) of it.
  void fill(int64_t begin, int64_t end, const ShallowShape& s, const Slab& slab, const Source& U_rows,
            const Source& W_rows, bool back) const {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t unit = slab.begin + i * kStep;
      put_source_along<F>(U_rows, s.H, s.k, unit, false, U.from(2 * i, 0));
      if (back) {
        put_source_across<F>(U_rows, s.H, s.k, unit, true, U_turned.from(0, i));
        put_source_along<F>(W_rows, s.H, s.C, unit, false, W.from(2 * i, 0));
      } else {
        put_source_across<F>(W_rows, s.H, s.C, unit, true, W_turned.from(0, i));
      }
    }
  }
};

// 32 units of 32 rows, [unit][row], on their way to being tiles.
struct alignas(64) Block {
  float h[kStep * kPanel];   // the product at first, then h
  float da[kStep * kPanel];  // the product at first, then da
  float slope[kStep * kPanel];
  uint8_t bytes[kStep * kPanel];  // of the mask
  Slab units;                     // fewer than 32 at the end of H
  int64_t panel;
};

// What one member needs to make blocks. While the products of one are made, the one before is finished, some units at a
// time.
template <class F>
class BlockMaker {
 public:
  BlockMaker(const ShallowShape& s, const float* b) : s_(s), b_(b) {}

  // h, and da where `dy` is given, of all blocks of a slab in a panel. finish(block's number, block, begin, end) is
  // called on all units of all blocks, in order, a number of pairs at a time.
  template <class Finish>
  void each_block(const TiledSlab<F>& weights, const Slab& slab, int64_t panel, const TileMatrix& z,
                  const TileMatrix* dy, Finish finish) {
    const int64_t blocks = steps_of(slab.units), k_steps = steps_of(s_.k), c_steps = dy ? steps_of(s_.C) : 0;
    const int64_t pairs = ceil_div(int64_t(kStep / 2), k_steps + c_steps > 0 ? k_steps + c_steps : 1);  // a step
    const auto part = [&](int64_t step) { return int(least(2 * pairs * step, int64_t(kStep))); };
    for (int64_t i = 0; i < blocks; ++i) {
      Block &block = blocks_[i & 1], &before = blocks_[~i & 1];
      block.units = {slab.begin + i * kStep, least(slab.units - i * kStep, int64_t(kStep))};
      block.panel = panel;
      const auto meanwhile = [&](int64_t step) {
        if (i > 0) finish_units(before, dy, i - 1, part(step), part(step + 1), finish);
      };
      tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.U.from(2 * i, 0), z.from(2 * panel, 0), k_steps, block.h,
                                                       kPanel, false, meanwhile);
      if (dy) {
        tile_product<typename F::Tiles, F::kTerms, 2, 2>(weights.W.from(2 * i, 0), dy->from(2 * panel, 0), c_steps,
                                                         block.da, kPanel, false,
                                                         [&](int64_t step) { meanwhile(k_steps + step); });
      }
      if (i > 0 && k_steps + c_steps == 0) finish_units(before, dy, i - 1, 0, kStep, finish);
    }
    finish_units(blocks_[(blocks - 1) & 1], dy, blocks - 1, 0, kStep, finish);
  }

 private:
  template <class Finish>
  void finish_units(Block& block, bool gradients, int64_t i, int begin, int end, Finish finish) {
    if (begin == end) return;
    if (begin == 0 && s_.mask.drops()) {
      mask_panel(s_.mask, block.panel * kPanel, block.units.begin, kStep, block.bytes);
    }
    hidden(block, gradients, begin, end);
    if (gradients) gradient(block, begin, end);
    finish(i, block, begin, end);
  }

  // Units beyond the last one have no bias and no slope: their weights are zeros, and so is all that they make.
  void hidden(Block& block, bool gradients, int begin, int end) const {
    const bool relu = s_.activation == Activation::relu;
    const int last = int(least(int64_t(end), block.units.units)), n = (end - begin) * kPanel;
    const auto add_bias = [&](auto f) {
      for (int u = begin; u < last; ++u) {
        const Floats16 bias = Floats16{} + b_[block.units.begin + u];
        float* const row = block.h + u * kPanel;
        MIMIC_UNROLL for (int r = 0; r < kPanel; r += kTile) store(row + r, f(load<Floats16>(row + r) + bias));
      }
    };
    relu ? add_bias([](Floats16 a) { return a < Floats16{} ? Floats16{} : a; })  // NaN stays
         : add_bias([](Floats16 a) { return a; });
    float* const h = block.h + begin * kPanel;
    float* const slope = gradients && !relu ? block.slope + begin * kPanel : nullptr;
    if (!relu) activate(s_.activation, n, h, h, slope);
    if (s_.mask.drops()) {
      const uint8_t* const bytes = block.bytes + begin * kPanel;
      apply_mask(n, bytes, s_.mask, h, h);
      if (slope) apply_mask(n, bytes, s_.mask, slope, slope);
    }
    clear_padding(s_, block.panel, end - begin, h);
    if (last < end) {
      const int first = last > begin ? last : begin;
      __builtin_memset(block.h + first * kPanel, 0, size_t(end - first) * kPanel * sizeof(float));
    }
  }

  void gradient(Block& block, int begin, int end) const {
    const auto gate = [&](auto f) {
      for (int i = begin * kPanel; i < end * kPanel; i += kTile)
        store(block.da + i, f(load<Floats16>(block.da + i), i));
    };
    if (s_.activation == Activation::relu) {
      const float scale = float(s_.mask.scale());
      gate([&](Floats16 dh, int i) { return load<Floats16>(block.h + i) > Floats16{} ? dh * scale : Floats16{}; });
    } else {
      gate([&](Floats16 dh, int i) { return dh * load<Floats16>(block.slope + i); });
    }
    clear_padding(s_, block.panel, end - begin, block.da + begin * kPanel);
  }

  const ShallowShape& s_;
  const float* b_;
  Block blocks_[2];
};

}  // namespace MIMIC_ISA
}  // namespace mimic
