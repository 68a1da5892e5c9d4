// What amx/shallow.h works on: a slab of weights as tiles, and blocks of h and da, 32 units by 32 rows, which leave
// their block as tiles only.
#pragma once

#include "cpu/amx/layouts.h"
#include "cpu/slab.h"

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
      if (products.dz) put_source_across<F>(U_rows, s.H, s.k, unit, 1, true, U_turned.from(0, i));
      if (products.dh) put_source_along<F>(W_rows, s.H, s.C, unit, false, W.from(2 * i, 0));
      if (products.y) put_source_across<F>(W_rows, s.H, s.C, unit, 1, true, W_turned.from(0, i));
    }
  }
};

constexpr int kBlock = kStep * kPanel;  // values of 32 units of 32 rows

// Such a block, [unit][row], on its way to being tiles.
struct alignas(64) Block {
  float a[kBlock], dh[kBlock];     // products
  float h[kBlock], slope[kBlock];  // where `hidden` makes them
  uint8_t bytes[kBlock];           // of the mask
  float da_sums[kStep * kTile];    // of da's rows, sixteen of every unit's
  Slab units;                      // fewer than 32 at the end of H
  int64_t panel;
  const float* sums;  // the products that h is made of
  int64_t saved_at;   // offset of its values in the saved h
};

// What a slab's blocks become, in one panel: tiles, and sums of da over the panel's rows, a unit each. What nobody
// wants is null.
struct Forms {
  TileMatrix h_along, h_across, da_along, da_across;
  float* db;

  // Those of block n alone.
  Forms of(int64_t n) const {
    const auto along = [&](const TileMatrix& m) { return m.tiles ? m.from(kStep / kTile * n, 0) : m; };
    const auto across = [&](const TileMatrix& m) { return m.tiles ? m.from(0, n) : m; };
    return {along(h_along), across(h_across), along(da_along), across(da_across), db ? db + n * kStep : nullptr};
  }
};

// What one member needs to make blocks. While the products of one are made, the one before is finished, a few pairs of
// units at a time.
template <class F>
class BlockMaker {
 public:
  BlockMaker(const ShallowShape& s, const float* b, const SavedH<float>& save, const SavedH<float>& saved)
      : s_(s), b_(b), save_(save), saved_(saved) {}

  // h, made or taken from what was kept, and da where `dy` is given, of all blocks of a slab in a panel; `sums`, unless
  // it is null, are the products that h is made of.
  void each_block(const TiledSlab<F>& weights, const Slab& slab, int64_t panel, const float* sums, const TileMatrix& z,
                  const TileMatrix* dy, const Forms& forms) {
    const int64_t blocks = steps_of(slab.units), panels = panels_of(s_);
    const bool multiply = !saved_.any() && !sums;
    const int64_t k_steps = multiply ? steps_of(s_.k) : 0, c_steps = dy ? steps_of(s_.C) : 0;
    const int64_t groups = (k_steps + c_steps) * F::Product::kGroups, first = groups / 4;
    for (int64_t i = 0; i <= blocks; ++i) {
      Block &block = blocks_[i & 1], &before = blocks_[~i & 1];
      const Forms to = forms.of(i > 0 ? i - 1 : 0);
      int done = i > 0 ? 0 : kTile;
      int64_t group = 0, due = 0;
      const auto finish_some = [&] {
        finish(before, dy, to, done, done + kAtOnce);
        done += kAtOnce;
      };
      const auto meanwhile = [&] {
        if (group++ < first) return;  // the block before is still being stored
        for (due += kTile / kAtOnce; due >= groups - first && done < kTile; due -= groups - first) finish_some();
      };
      if (i < blocks) {
        block.units = {slab.begin + i * kStep, least(slab.units - i * kStep, int64_t(kStep))};
        block.panel = panel;
        block.sums = sums ? sums + i * kBlock : block.a;
        block.saved_at = saved_at(panels, slab, panel) + i * kBlock;
        const auto product = [&](const TileMatrix& weight, const TileMatrix& rows, int64_t steps, float* to_values) {
          tile_product<typename F::Tiles, typename F::Product, 2, 2>(weight.from(2 * i, 0), rows.from(2 * panel, 0),
                                                                     steps, to_values, kPanel, false, meanwhile);
        };
        if (multiply) product(weights.U, z, k_steps, block.a);
        if (dy) product(weights.W, *dy, c_steps, block.dh);
      }
      while (done < kTile) finish_some();
    }
  }

  // Whether h was saved in bfloat16, so that the first of its three terms is all of it.
  bool rounded_h() const { return F::kTerms == 3 && saved_.bf16 && s_.activation == Activation::relu; }

 private:
  static constexpr int kAtOnce = F::kTerms == 1 ? 8 : 2;    // pairs of units that are finished at once ...
  static constexpr int kPrepared = F::kTerms == 1 ? 8 : 4;  // ... and that `hidden` makes

  // Pairs [begin, end) of a block's units. With relu, h and da stay in registers from product to tile. Other
  // activations, blocks at an edge, and an h that has to be saved go through `hidden`, which writes longer runs: that
  // took less time than line by line. Units beyond the last one have weights and an h of 0, so that all that is made of
  // them is 0.
  MIMIC_NOINLINE void finish(Block& block, bool gradients, const Forms& to, int begin, int end) {
    const bool relu = s_.activation == Activation::relu,
               whole = block.units.units == kStep && rows_in_panel(s_, block.panel) == kPanel;
    const float scale = float(s_.mask.scale()), *const dh = block.dh;
    const auto gated = [dh, scale](Floats16 h, int at) {
      return h > Floats16{} ? load<Floats16>(dh + at) * scale : Floats16{};
    };
    if (relu && whole && saved_.full) {
      const float* const saved = saved_.full + block.saved_at;
      return put_pairs(block, to, gradients, begin, end, [saved](int at) { return load<Floats16>(saved + at); }, gated);
    }
    if (relu && whole && saved_.bf16) {
      const uint16_t* const saved = saved_.bf16 + block.saved_at;
      const auto h = [saved](int at) { return same_bits<Floats16>(rounded(saved + at)); };
      return put_pairs(block, to, gradients, begin, end, h, gated);
    }
    if (relu && whole && !save_.any()) {
      const float *const sums = block.sums, *const bias = b_ + block.units.begin;
      const auto h = [sums, bias](int at) { return positive(load<Floats16>(sums + at) + bias[at / kPanel]); };
      if (!s_.mask.drops()) return put_pairs(block, to, gradients, begin, end, h, gated);
      if (begin == 0) draw_mask(block);
      const auto masked = [&h, scale, threshold = int32_t(s_.mask.threshold), bytes = block.bytes](int at) {
        return h(at) * (widened(bytes + at) < threshold ? Floats16{} + scale : Floats16{});
      };
      return put_pairs(block, to, gradients, begin, end, masked, gated);
    }
    if (begin % kPrepared == 0) hidden(block, gradients, 2 * begin, 2 * (begin + kPrepared));
    const float *const values = block.h, *const slope = block.slope;
    const auto h = [values](int at) { return load<Floats16>(values + at); };
    if (relu) return put_pairs(block, to, gradients, begin, end, h, gated);
    const auto da = [dh, slope](Floats16, int at) { return load<Floats16>(dh + at) * load<Floats16>(slope + at); };
    put_pairs(block, to, gradients, begin, end, h, da);
  }

  // Sixteen and sixteen values of each of the two units of pair i.
  static MIMIC_INLINE void put_pair(const TileMatrix& along, const TileMatrix& across, int i,
                                    const Floats16 (&x)[2][2]) {
    const Cut<F> first[2] = {Cut<F>(x[0][0]), Cut<F>(x[0][1])}, second[2] = {Cut<F>(x[1][0]), Cut<F>(x[1][1])};
    if (along.tiles) {
      Cut<F>::store_along(first[0], first[1], line(along, 2 * i), along.plane);
      Cut<F>::store_along(second[0], second[1], line(along, 2 * i + 1), along.plane);
    }
    for (int half = 0; across.tiles && half < 2; ++half) {
      Cut<F>::store_across(first[half], second[half], across.tile(half, 0) + i * kTile, across.plane);
    }
  }

  // Pairs [begin, end) of units as tiles. h(at) are sixteen of its values in a block, da(h, at) those of da there.
  template <class H, class Da>
  MIMIC_INLINE void put_pairs(Block& block, const Forms& to, bool gradients, int begin, int end, H h, Da da) const {
    for (int i = begin; i < end; ++i) {
      const int unit[2] = {2 * i, 2 * i + 1};
      Floats16 x[2][2];
      for (int n = 0; n < 4; ++n) x[n / 2][n % 2] = h(unit[n / 2] * kPanel + n % 2 * kTile);
      if (to.h_along.tiles && rounded_h()) {
        for (int n = 0; n < 2; ++n) {
          store(line(to.h_along, unit[n]), words_of(same_bits<Bf16Words>(x[n][0]), same_bits<Bf16Words>(x[n][1])));
        }
      } else if (to.h_along.tiles || to.h_across.tiles) {
        put_pair(to.h_along, to.h_across, i, x);
      }
      if (!gradients) continue;
      for (int n = 0; n < 4; ++n) x[n / 2][n % 2] = da(x[n / 2][n % 2], unit[n / 2] * kPanel + n % 2 * kTile);
      for (int n = 0; to.db && n < 2; ++n) {
        store(block.da_sums + unit[n] * kTile, Cut<F>::in_tiles(x[n][0]) + Cut<F>::in_tiles(x[n][1]));
      }
      put_pair(to.da_along, to.da_across, i, x);
    }
    if (gradients && to.db && end == kTile) sum_lines(block.da_sums, to.db);
  }

  // sums[i] = that of sixteen values, from 16 i on, for 32 units.
  static void sum_lines(const float* values, float* sums) {
    for (int half = 0; half < kStep; half += kTile) {
      alignas(64) float turned[kTile * kTile];
      transpose(values + half * kTile, ptrdiff_t(kTile), ptrdiff_t(kTile), ptrdiff_t(kTile), turned, ptrdiff_t(kTile));
      Floats16 sum = load<Floats16>(turned);
      for (int i = 1; i < kTile; ++i) sum += load<Floats16>(turned + i * kTile);
      store(sums + half, sum);
    }
  }
  static uint32_t* line(const TileMatrix& along, int unit) {
    return along.tile(unit / kTile, 0) + unit % kTile * kTile;
  }

  void draw_mask(Block& block) const {
    mask_panel(s_.mask, block.panel * kPanel, block.units.begin, kStep, block.bytes);
  }

  static void clear_units(float* values, int begin, int last, int end) {
    const int first = last > begin ? last : begin;
    if (first < end) __builtin_memset(values + first * kPanel, 0, size_t(end - first) * kPanel * sizeof(float));
  }

  // h of units [begin, end), and for all but relu the factor of da, with zeros where no row stands behind them.
  void hidden(Block& block, bool gradients, int begin, int end) const {
    const bool relu = s_.activation == Activation::relu;
    const int last = int(least(int64_t(end), block.units.units)), n = (end - begin) * kPanel;
    const int64_t at = block.saved_at + begin * kPanel, saved = last > begin ? (last - begin) * kPanel : 0;
    float* const h = block.h + begin * kPanel;
    saved_.any() ? read_h(saved_, at, saved, h) : add_bias(block, begin, last);
    clear_units(block.h, begin, last, end);
    if (relu && saved_.any()) return;
    if (!relu) write_h(save_, at, saved, h);
    float* const slope = gradients && !relu ? block.slope + begin * kPanel : nullptr;
    if (!relu) activate(s_.activation, n, h, h, slope);
    if (s_.mask.drops()) {
      if (begin == 0) draw_mask(block);
      const uint8_t* const bytes = block.bytes + begin * kPanel;
      apply_mask(n, bytes, s_.mask, h, h);
      if (slope) apply_mask(n, bytes, s_.mask, slope, slope);
    }
    clear_padding(s_, block.panel, end - begin, h);
    if (slope) {
      clear_padding(s_, block.panel, end - begin, slope);
      clear_padding(s_, block.panel, end - begin, block.dh + begin * kPanel);
    }
    clear_units(block.h, begin, last, end);
    if (relu) write_h(save_, at, saved, h);
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
    s_.activation == Activation::relu ? add([](Floats16 a) { return positive(a); }) : add([](Floats16 a) { return a; });
  }
  static MIMIC_INLINE Floats16 positive(Floats16 a) { return a < Floats16{} ? Floats16{} : a; }  // NaN stays

  const ShallowShape& s_;
  const float* b_;
  SavedH<float> save_;
  SavedH<float> saved_;
  Block blocks_[2];
};

}  // namespace MIMIC_ISA
}  // namespace mimic
