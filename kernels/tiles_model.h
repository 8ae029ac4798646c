// What the tile instructions do, in plain C++: so the code over them is tested on every machine.
//
// Follows the operation sections of LDTILECFG, TILELOADD, TILESTORED, TILEZERO and TDPBSUD in the
// Intel 64 Software Developer's Manual, vol. 2. What the processor answers with a fault ends the
// process.
#pragma once

#include <cstdlib>
#include <cstring>

#include "tiles.h"

#define GANGLINE_TILES

namespace gangline {
namespace GANGLINE_PATH {

struct TileRegister {
  int64_t rows, row_bytes;
  uint8_t bytes[16][64];
};

struct TileRegisters {
  bool configured;
  TileRegister tile[8];
};

// One definition for all sources of the path; a thread has registers of its own.
inline TileRegisters& tile_registers() {
  static thread_local TileRegisters registers;
  return registers;
}

struct TileUnit {
  static TileRegister& tile(int number) {
    TileRegisters& registers = tile_registers();
    if (!registers.configured || !registers.tile[number].rows) std::abort();
    return registers.tile[number];
  }
  static void configure(const TileConfig& config) {
    if (config.palette != 1 || config.start_row != 0) std::abort();
    TileRegisters& registers = tile_registers();
    std::memset(&registers, 0, sizeof registers);
    registers.configured = true;
    for (int i = 0; i < 16; ++i) {
      const bool used = config.rows[i] != 0;
      if (used != (config.row_bytes[i] != 0) || (used && i >= 8)) std::abort();
      if (config.rows[i] > 16 || config.row_bytes[i] > 64) std::abort();
      if (!used) continue;
      registers.tile[i].rows = config.rows[i];
      registers.tile[i].row_bytes = config.row_bytes[i];
    }
  }
  static void release() { std::memset(&tile_registers(), 0, sizeof(TileRegisters)); }
  template <int Tile>
  static void zero() {
    std::memset(tile(Tile).bytes, 0, sizeof(TileRegister::bytes));
  }
  template <int Tile>
  static void load(const void* from, int64_t stride) {
    TileRegister& t = tile(Tile);
    zero<Tile>();
    for (int64_t row = 0; row < t.rows; ++row)
      std::memcpy(t.bytes[row], static_cast<const uint8_t*>(from) + row * stride,
                  static_cast<size_t>(t.row_bytes));
  }
  template <int Tile>
  static void store(void* to, int64_t stride) {
    const TileRegister& t = tile(Tile);
    for (int64_t row = 0; row < t.rows; ++row)
      std::memcpy(static_cast<uint8_t*>(to) + row * stride, t.bytes[row],
                  static_cast<size_t>(t.row_bytes));
  }
  template <int Sums, int A, int B>
  static void multiply() {
    TileRegister& c = tile(Sums);
    const TileRegister &a = tile(A), &b = tile(B);
    if (c.rows != a.rows || c.row_bytes != b.row_bytes || a.row_bytes != 4 * b.rows) std::abort();
    for (int64_t m = 0; m < c.rows; ++m) {
      for (int64_t n = 0; n < c.row_bytes / 4; ++n) {
        int32_t sum;
        std::memcpy(&sum, c.bytes[m] + 4 * n, 4);
        for (int64_t k = 0; k < a.row_bytes / 4; ++k)
          for (int64_t i = 0; i < 4; ++i)
            sum += static_cast<int8_t>(a.bytes[m][4 * k + i]) * b.bytes[k][4 * n + i];
        std::memcpy(c.bytes[m] + 4 * n, &sum, 4);
      }
    }
  }
};

using Tiles = TilesOf<TileUnit>;

}  // namespace GANGLINE_PATH
}  // namespace gangline
