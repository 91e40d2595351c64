// Quads for `vpmaddubsw`, which adds two products of an unsigned and a signed byte in 16 bits and saturates.
//
// Two products of inputs up to 255 fit where the weights of one sign add up to at most 128, as those of nearly all pairs do. Of a
// pair that is too large the second weight is cut to what fits, and what is cut off becomes one more cell, of the same column:
// the sum of all products is the same, to the bit. `pack_int8` orders the cells so that this is rare.
#pragma once

#include <cstring>

#include "../kernels.h"

namespace lavolta {
namespace {

// Rows of a block that the columns of a part touch fit half of a small first-level cache: all tiles of the block find them there.
constexpr uint32_t kPartQuads = 64;
constexpr int kMostOfASign = 128;  // 255 * 128 < 2^15

// Up to kPartQuads quads of R rows, and as many again for what is cut off: at worst one cell of every pair, which gets a pair.
template <int R>
struct HarmlessQuads {
    alignas(64) int8_t values[2 * kPartQuads * R * kQuad];
    alignas(64) uint32_t columns[2 * kPartQuads * kQuad];  // as distances of narrow rows, in bytes
    uint32_t quads = 0;
    uint32_t cuts = 0;  // pairs behind the quads, until they are quads themselves

    // off: what was cut off the second cell of pair 0 or 1 of a quad, 4 bytes from row to row.
    void cut(uint32_t quad, uint32_t pair, const int8_t* off) {
        int8_t* to = values + (quads + cuts / 2) * R * kQuad;
        uint32_t* to_columns = columns + (quads + cuts / 2) * kQuad;
        const uint32_t column = columns[quad * kQuad + 2 * pair + 1];
        if (cuts % 2 == 0) {
            std::memset(to, 0, R * kQuad);
            to_columns[2] = to_columns[3] = column;
        }
        for (int r = 0; r < R; ++r) to[r * kQuad + cuts % 2 * 2] = off[r * kQuad];
        to_columns[cuts % 2 * 2] = to_columns[cuts % 2 * 2 + 1] = column;
        ++cuts;
    }

    // Afterwards the quads are even in number: two make a turn of a tile's loop, and a quad of zeros changes no sum.
    void close() {
        quads += (cuts + 1) / 2;
        cuts = 0;
        if (quads % 2 == 0) return;
        std::memset(values + quads * R * kQuad, 0, R * kQuad);
        std::memset(columns + quads * kQuad, 0, kQuad * sizeof *columns);
        ++quads;
    }
};

}  // namespace
}  // namespace lavolta
