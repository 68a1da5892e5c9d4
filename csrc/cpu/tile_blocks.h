// What shallow_tiles.h works on: a slab of weights as tiles, and blocks of h and da, 32 units by 32 rows, which leave
// their block as tiles only.
#pragma once

#include "shallow.h"
#include "tile_forms.h"

namespace mimic {
namespace MIMIC_ISA {

static_assert(kStep == kPanel && kPanel % kTile == 0 && kStep == kMaskUnits, "blocks are square, and those of masks");

// Which products with a slab's weights a pass makes: h, and then either y, or dL/dh and dz.
struct Products {
  bool h, y, dh, dz;
};

// One slab of U and W, in the forms that these products take.
template <class F>
struct TiledSlab {
  Products products;
  TileMatrix U, U_turned, W, W_turned;

  static TiledSlab take(Arena& arena, const ShallowShape& s, Products p) {
    const int64_t blocks = steps_of(s.slab), none = 0;
    return {p, take_tiles<F>(arena, p.h ? 2 * blocks : none, steps_of(s.k)),
            take_tiles<F>(arena, p.dz ? tiles_of(s.k) : none, blocks),
            take_tiles<F>(arena, p.dh ? 2 * blocks : none, steps_of(s.C)),
            take_tiles<F>(arena, p.y ? tiles_of(s.C) : none, blocks)};
  }

  // Blocks [begin, end) of it.
  void fill(int64_t begin, int64_t end, const ShallowShape& s, const Slab& slab, const Source& U_rows,
            const Source& W_rows) const {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t unit = slab.begin + i * kStep;
      if (products.h) put_source_along<F>(U_rows, s.H, s.k, unit, false, U.from(2 * i, 0));
      if (products.dz) put_source_across<F>(U_rows, s.H, s.k, unit, true, U_turned.from(0, i));
      if (products.dh) put_source_along<F>(W_rows, s.H, s.C, unit, false, W.from(2 * i, 0));
      if (products.y) put_source_across<F>(W_rows, s.H, s.C, unit, true, W_turned.from(0, i));
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
  const float* sums;  // the products that h is made of
  int64_t kept_at;    // where its values lie in what is kept
};

// What one member needs to make blocks. While the products of one are made, the one before is finished: in pieces, a
// few units or one form of them at a time.
template <class F>
class BlockMaker {
 public:
  BlockMaker(const ShallowShape& s, const float* b, const Keep<float>& keep, const Kept<float>& kept)
      : s_(s), b_(b), keep_(keep), kept_(kept) {}

  // h, made or taken from what was kept, and da where `dy` is given, of all blocks of a slab in a panel; `sums`, unless
  // it is null, are the products that h is made of. put(form, i, block, begin, end) is called on all units of all
  // blocks, in order, some at a time, with each of `forms` numbers.
  template <class Put>
  void each_block(const TiledSlab<F>& weights, const Slab& slab, int64_t panel, const float* sums, const TileMatrix& z,
                  const TileMatrix* dy, int forms, const Put& put) {
    const int64_t blocks = steps_of(slab.units), panels = ceil_div(s_.B, int64_t(kPanel));
    const bool multiply = !kept_.any() && !sums;
    const int64_t k_steps = multiply ? steps_of(s_.k) : 0, c_steps = dy ? steps_of(s_.C) : 0;
    const int64_t groups = (k_steps + c_steps) * F::Product::kGroups, first = groups / 4;
    const int pieces = kStep / kPiece * (1 + forms);
    for (int64_t i = 0; i <= blocks; ++i) {
      Block &block = blocks_[i & 1], &before = blocks_[~i & 1];
      int done = i > 0 ? 0 : pieces, part = 0, piece = 0;
      int64_t group = 0, due = 0;
      const auto finish_piece = [&] {
        finish(before, dy, i - 1, part, piece, put);
        ++done;
        if (++piece > forms) piece = 0, ++part;
      };
      const auto meanwhile = [&] {
        if (group++ < first) return;  // the block before is still being stored
        for (due += pieces; due >= groups - first && done < pieces; due -= groups - first) finish_piece();
      };
      if (i < blocks) {
        block.units = {slab.begin + i * kStep, least(slab.units - i * kStep, int64_t(kStep))};
        block.panel = panel;
        block.sums = sums ? sums + i * kStep * kPanel : block.h;
        block.kept_at = kept_at(panels, slab, panel) + i * kStep * kPanel;
        const auto product = [&](const TileMatrix& weight, const TileMatrix& rows, int64_t steps, float* to) {
          tile_product<typename F::Tiles, typename F::Product, 2, 2>(weight.from(2 * i, 0), rows.from(2 * panel, 0),
                                                                     steps, to, kPanel, false, meanwhile);
        };
        if (multiply) product(weights.U, z, k_steps, block.h);
        if (dy) product(weights.W, *dy, c_steps, block.da);
      }
      while (done < pieces) finish_piece();
    }
  }

 private:
  static constexpr int kPiece = F::kTerms == 3 ? 8 : 16;  // units

  // Piece 0 of some units is what they are, the others are the forms that are wanted of them. Units beyond the last one
  // have a pre-activation of 0 and weights of 0: so is all that they make.
  template <class Put>
  MIMIC_NOINLINE void finish(Block& block, bool gradients, int64_t i, int part, int piece, const Put& put) {
    const int begin = part * kPiece, end = begin + kPiece;
    if (piece > 0) return put(piece - 1, i, block, begin, end);
    const bool relu = s_.activation == Activation::relu;
    const int last = int(least(int64_t(end), block.units.units));
    const int64_t at = block.kept_at + begin * kPanel, n = last > begin ? (last - begin) * kPanel : 0;
    float* const h = block.h + begin * kPanel;
    kept_.any() ? read_kept(kept_, at, n, h) : add_bias(block, begin, last);
    clear_units(block.h, begin, last, end);
    if (!relu) write_kept(keep_, at, n, h);
    if (!(relu && kept_.any())) hidden(block, gradients, begin, last, end);
    if (relu) write_kept(keep_, at, n, h);
    if (gradients) gradient(block, begin, end);
  }

  // a, or of relu its positive part.
  void add_bias(Block& block, int begin, int last) const {
    const auto add = [&](auto f) {
      for (int u = begin; u < last; ++u) {
        const Floats16 bias = Floats16{} + b_[block.units.begin + u];
        const float* const row = block.sums + u * kPanel;
        MIMIC_UNROLL for (int r = 0; r < kPanel; r += kTile) {
          store(block.h + u * kPanel + r, f(load<Floats16>(row + r) + bias));
        }
      }
    };
    s_.activation == Activation::relu ? add([](Floats16 a) { return a < Floats16{} ? Floats16{} : a; })  // NaN stays
                                      : add([](Floats16 a) { return a; });
  }

  static void clear_units(float* values, int begin, int last, int end) {
    const int first = last > begin ? last : begin;
    if (first < end) __builtin_memset(values + first * kPanel, 0, size_t(end - first) * kPanel * sizeof(float));
  }

  void hidden(Block& block, bool gradients, int begin, int last, int end) const {
    const bool relu = s_.activation == Activation::relu;
    const int n = (end - begin) * kPanel;
    float* const h = block.h + begin * kPanel;
    float* const slope = gradients && !relu ? block.slope + begin * kPanel : nullptr;
    if (!relu) activate(s_.activation, n, h, h, slope);
    if (s_.mask.drops()) {
      if (begin == 0) mask_panel(s_.mask, block.panel * kPanel, block.units.begin, kStep, block.bytes);
      const uint8_t* const bytes = block.bytes + begin * kPanel;
      apply_mask(n, bytes, s_.mask, h, h);
      if (slope) apply_mask(n, bytes, s_.mask, slope, slope);
    }
    clear_padding(s_, block.panel, end - begin, h);
    clear_units(block.h, begin, last, end);
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
  Keep<float> keep_;
  Kept<float> kept_;
  Block blocks_[2];
};

}  // namespace MIMIC_ISA
}  // namespace mimic
