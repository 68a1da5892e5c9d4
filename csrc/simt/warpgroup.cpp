#include "simt/warpgroup.h"

#include "simt/barriers.h"

#include <string.h>

#include <algorithm>
#include <cmath>

namespace simt {
namespace {

constexpr int kDepth = 16, kMostTiles = 16;

// An operand in shared memory: groups of 8 rows of 128 bytes (a descriptor's swizzle 1) or of 32 (swizzle 3).
struct Piece {
  uint32_t start, group_stride, row_bytes;

  Piece(uint64_t descriptor, const Location& where)
      : start(uint32_t(descriptor & 0x3FFF) << 4),
        group_stride(uint32_t(descriptor >> 32 & 0x3FFF) << 4),
        row_bytes(descriptor >> 62 == 1 ? 128 : 32) {
    const uint64_t swizzle = descriptor >> 62;
    if ((swizzle != 1 && swizzle != 3) || (descriptor >> 49 & 7) != 0)
      block.fail("wgmma: a descriptor of another layout than 128-byte or 32-byte swizzle", where);
  }

  void read(uint16_t* to, int row, int elements, const Location& where) const {
    if (uint32_t(elements) * 2 > row_bytes) block.fail("wgmma: an operand wider than its rows", where);
    for (int i = 0; i < elements; i += 8) {
      const uint32_t address =
          start + uint32_t(row / 8) * group_stride + uint32_t(row % 8) * row_bytes + uint32_t(i) * 2;
      memcpy(to + i, shared(swizzled(address, row_bytes), 16, where), 16);
    }
  }
};

// What a warp's product needs when it is made. It reads the lanes' registers `a` only then.
struct Job {
  WideProduct p;
  const uint32_t* a[kLanes];
  const void* key;
  int warp, mutant;
  Location where;
};

void make(const Job& job, std::vector<float>& sums) {
  const WideProduct& p = job.p;
  const int columns = 8 * p.tiles;
  float a[16][kDepth], b[kDepth][8 * kMostTiles];
  uint16_t row[8 * kMostTiles];
  if (p.a) {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int r = 0; r < 4; ++r)
        for (int j = 0; j < 2; ++j)
          a[lane / 4 + 8 * (r % 2)][8 * (r / 2) + 2 * (lane % 4) + j] = value(p.type, job.a[lane][r], j);
  } else {
    const Piece piece(p.a_descriptor, job.where);
    for (int i = 0; i < 16; ++i) {
      piece.read(row, job.warp % 4 * 16 + i, kDepth, job.where);
      for (int k = 0; k < kDepth; ++k) a[i][k] = value(p.type, row[k], 0);
    }
  }
  const Piece piece(p.b_descriptor, job.where);
  for (int i = 0; i < (p.b_down ? kDepth : columns); ++i) {
    piece.read(row, i, p.b_down ? columns : kDepth, job.where);
    for (int j = 0; j < (p.b_down ? columns : kDepth); ++j) (p.b_down ? b[i][j] : b[j][i]) = value(p.type, row[j], 0);
  }
  const bool add = p.add != (job.mutant == 1);
  for (int i = 0; i < 16; ++i) {
    float d[8 * kMostTiles] = {};
    for (int k = 0; k < kDepth; ++k)
      for (int j = 0; j < columns; ++j) d[j] += a[i][job.mutant == 0 ? k ^ 8 : k] * b[k][j];
    for (int j = 0; j < columns; ++j) {
      float& sum = sums[size_t((i % 8 * 4 + j % 8 / 2) * 4 * p.tiles + j / 8 * 4 + i / 8 * 2 + j % 2)];
      sum = add ? sum + d[j] : d[j];
    }
  }
}

Products::Registers& claim(Products& products, const void* key, const Location& where) {
  Products::Registers& registers = products.registers[key];
  if (registers.last_group < 0 && registers.fences >= products.fences)
    block.fail("wgmma: no wgmma_fence since its registers were the threads' own", where);
  registers.last_group = products.groups;
  return registers;
}

// The last lane to arrive puts the warp's product into the queue.
void issue(void** arguments, const Location& where) {
  const WideProduct& p = *static_cast<const WideProduct*>(arguments[0]);
  const int mutant = visit(p.b_down ? "wgmma_down" : "wgmma_along", where, 2);
  Products& products = block.warp().products;
  Job job = {p, {}, p.d, block.thread_index() / kLanes, mutant, where};
  const bool fresh = products.registers[p.d].last_group < 0;
  if (p.a) claim(products, p.a, where);
  Products::Registers& d = claim(products, p.d, where);
  const size_t each = size_t(4 * p.tiles);
  d.sums.resize(kLanes * each);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const WideProduct& other = *static_cast<const WideProduct*>(arguments[lane]);
    if (other.a_descriptor != p.a_descriptor || other.b_descriptor != p.b_descriptor || other.add != p.add)
      block.fail("wgmma: lanes differ in a descriptor or in whether to add", where);
    job.a[lane] = other.a;
    d.of_lane[lane] = other.d;
    if (fresh) std::copy_n(other.d, each, &d.sums[lane * each]);
    std::fill_n(other.d, each, std::nanf(""));
  }
  ++products.issued;
  products.jobs.push_back({products.groups, [job, &products] { make(job, products.registers[job.key].sums); }});
}

void complete_wait(Products& products, int still_under_way) {
  const int end = products.groups - still_under_way;
  while (!products.jobs.empty() && products.jobs.front().group < end) {
    products.jobs.front().run();
    products.jobs.pop_front();
  }
  for (auto& [key, registers] : products.registers) {
    if (registers.last_group < 0 || registers.last_group >= end) continue;
    const size_t each = registers.sums.size() / kLanes;
    for (size_t lane = 0; lane < kLanes; ++lane)
      if (each) std::copy_n(&registers.sums[lane * each], each, registers.of_lane[lane]);
    registers.last_group = -1;
    registers.fences = products.fences;
  }
}

}  // namespace

void wgmma(const WideProduct& product, const char* what, const Location& where) {
  WideProduct argument = product;
  meet(what, where, &argument, issue);
}

void wgmma_fence(const Location& where) {
  meet("wgmma_fence", where, nullptr, [](void**, const Location& site) {
    if (!removed("wgmma_fence", site)) ++block.warp().products.fences;
  });
}

void wgmma_commit(const Location& where) {
  meet("wgmma_commit", where, nullptr, [](void**, const Location& site) {
    if (!removed("wgmma_commit", site)) ++block.warp().products.groups;
  });
}

void wgmma_wait(int still_under_way, const Location& where) {
  if (removed("wgmma_wait", where)) return;
  meet("wgmma_wait", where, &still_under_way, [](void** arguments, const Location&) {
    complete_wait(block.warp().products, *static_cast<const int*>(arguments[0]));
  });
}

}  // namespace simt
