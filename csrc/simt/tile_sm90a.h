// The vocabulary of kernels/tile/tile_sm90a.cuh on the host.
#pragma once

#include "simt/barriers.h"
#include "simt/tile.h"
#include "simt/warpgroup.h"

namespace mimic {

using TensorMap = simt::TensorMap;

inline int uniform(int value) { return value; }

inline uint32_t shared_address(uint32_t at) { return at; }

inline void mbarrier_init(uint32_t at, uint32_t arrivals, Site site = Site::current()) {
  simt::mbarrier_init(at, arrivals, site);
}

inline void mbarrier_init_fence(Site site = Site::current()) {
  if (!simt::removed("mbarrier_init_fence", site)) simt::mbarrier_init_fence(site);
}

inline void mbarrier_arrive(uint32_t at, Site site = Site::current()) {
  if (!simt::removed("mbarrier_arrive", site)) simt::mbarrier_arrive(at, 0, site);
}

// Its mutant arrives, but does not make the phase wait for the bytes.
inline void mbarrier_arrive_expecting(uint32_t at, uint32_t bytes, Site site = Site::current()) {
  simt::mbarrier_arrive(at, simt::removed("mbarrier_arrive_expecting", site) ? 0 : bytes, site);
}

inline void mbarrier_wait(uint32_t at, uint32_t parity, Site site = Site::current()) {
  if (!simt::removed("mbarrier_wait", site)) simt::mbarrier_wait(at, parity, site);
}

inline void copy_box(uint32_t to, const TensorMap& map, int column, int row, uint32_t barrier,
                     Site site = Site::current()) {
  if (!simt::removed("copy_box", site)) simt::copy_box(to, map, column, row, barrier, site);
}

inline void prefetch(const void* from, uint32_t bytes, Site site = Site::current()) {
  simt::prefetch(from, bytes, site);  // has no mutant, as it changes no result
}

inline void wgmma_fence(Site site = Site::current()) { simt::wgmma_fence(site); }
inline void wgmma_commit(Site site = Site::current()) { simt::wgmma_commit(site); }

template <int still_under_way>
void wgmma_wait(Site site = Site::current()) {
  simt::wgmma_wait(still_under_way, site);
}

// Does nothing here: sums change inside the wait.
template <int tiles>
void wgmma_done(float (&)[tiles][4]) {}

template <class Element, int tiles>
void wgmma_along(float (&d)[tiles][4], uint64_t a, uint64_t b, bool add, Site site = Site::current()) {
  simt::wgmma({Element::operand, tiles, d[0], nullptr, a, b, false, add}, "wgmma_along", site);
}

template <class Element>
void wgmma_along_first(float (&d)[8][4], uint64_t a, uint64_t b, Site site = Site::current()) {
  wgmma_along<Element>(d, a, b, false, site);
}

template <class Element, int tiles>
void wgmma_down(float (&d)[tiles][4], const uint32_t (&a)[4], uint64_t b, Site site = Site::current()) {
  simt::wgmma({Element::operand, tiles, d[0], a, 0, b, true, true}, "wgmma_down", site);
}

template <int threads>
void sync_some(int id, Site site = Site::current()) {
  if (!simt::removed("sync_some", site)) simt::block.arrive(id, threads, true, "sync_some", site);
}

// Registers are not counted here.
template <int registers>
void give_registers() {}
template <int registers>
void take_registers() {}

}  // namespace mimic
