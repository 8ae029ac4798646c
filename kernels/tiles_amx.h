// The tiles of AMX: needs AMX-TILE and AMX-INT8, and the kernel's permission (dispatch.cpp).
//
// Written as instructions rather than intrinsics, which take tile numbers as literals only.
#pragma once

#include "tiles.h"

#define GANGLINE_TILES

namespace gangline {
namespace GANGLINE_PATH {

struct TileUnit {
  static void configure(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { __asm__ volatile("tilerelease" : : :); }
  template <int Tile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(Tile));
  }
  template <int Tile>
  static void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile)
                     : "memory");
  }
  template <int Tile>
  static void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile)
                     : "memory");
  }
  // Sums += signed bytes of A times unsigned bytes of B.
  template <int Sums, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(A), "i"(B));
  }
};

using Tiles = TilesOf<TileUnit>;

}  // namespace GANGLINE_PATH
}  // namespace gangline
