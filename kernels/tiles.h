// Products of whole numbers by tiles, over the few instructions that a TileUnit has: the processor's
// (tiles_amx.h), or a model of them in plain C++ for the tests (tiles_model.h).
//
// Eight tiles of at most 16 rows of 64 bytes. Of a group of a packed matrix the codes of a panel are
// one tile (columns / 4, 16, 4), those of 16 rows of x another (16, columns), and the sums of their
// products a third (16, 16) of 32 bits. All of it is exact.
#pragma once

#include <cstdint>

namespace gangline {
namespace GANGLINE_PATH {

constexpr int64_t kTileRows = 16;

// Intel 64 Software Developer's Manual, vol. 2, LDTILECFG: the memory that it reads.
struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "the size that the instruction reads");

constexpr int kWeightTile = 4;  // sums are in tiles 0 to 3
constexpr int kRowsTile = 5;    // and 6, in turn, so that a load need not wait for a product

// Blocks 0 to B - 1 of rows of x.
template <class Unit, int B>
struct TileBlocks {
  static void zero() {
    TileBlocks<Unit, B - 1>::zero();
    Unit::template zero<B - 1>();
  }
  static void multiply(const int8_t* x, int64_t block_bytes, int64_t columns) {
    TileBlocks<Unit, B - 1>::multiply(x, block_bytes, columns);
    constexpr int tile = kRowsTile + (B - 1) % 2;
    Unit::template load<tile>(x + (B - 1) * block_bytes, columns);
    Unit::template multiply<B - 1, tile, kWeightTile>();
  }
  static void store(int32_t (*sums)[kTileRows][16]) {
    TileBlocks<Unit, B - 1>::store(sums);
    Unit::template store<B - 1>(sums[B - 1], 64);
  }
};

template <class Unit>
struct TileBlocks<Unit, 0> {
  static void zero() {}
  static void multiply(const int8_t*, int64_t, int64_t) {}
  static void store(int32_t (*)[kTileRows][16]) {}
};

// The tiles of this thread, from construction to destruction, for groups of one size.
template <class Unit>
class TilesOf {
 public:
  // `columns` of a group that a tile holds: 32 or 64.
  explicit TilesOf(int64_t columns) {
    TileConfig config;
    for (int tile = 0; tile < 7; ++tile) {
      config.row_bytes[tile] = static_cast<uint16_t>(tile < kRowsTile ? 64 : columns);
      config.rows[tile] = static_cast<uint8_t>(tile == kWeightTile ? columns / 4 : kTileRows);
    }
    Unit::configure(config);
  }
  ~TilesOf() { Unit::release(); }
  TilesOf(const TilesOf&) = delete;
  TilesOf& operator=(const TilesOf&) = delete;

  // sums[b] (16, 16): 16 rows of x, block b, times the codes of a panel. Codes are n tiles
  // (columns / 4, 16, 4); x has n tiles (16, columns) in each block, blocks block_bytes apart.
  template <int B>
  static void multiply(const uint8_t* codes, const int8_t* x, int64_t block_bytes, int64_t n,
                       int64_t columns, int32_t (*sums)[kTileRows][16]) {
    TileBlocks<Unit, B>::zero();
    for (int64_t i = 0; i < n; ++i) {
      Unit::template load<kWeightTile>(codes + i * columns * 16, 64);
      TileBlocks<Unit, B>::multiply(x + i * columns * kTileRows, block_bytes, columns);
    }
    TileBlocks<Unit, B>::store(sums);
  }
};

}  // namespace GANGLINE_PATH
}  // namespace gangline
