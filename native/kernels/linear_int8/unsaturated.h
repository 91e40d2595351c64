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
    alignas(64) uint16_t columns[2 * kPartQuads * kQuad];
    uint32_t quads = 0;
    uint32_t cuts = 0;  // pairs behind the quads, until they are quads themselves

    // `step` bytes lead from a quad to the next.
    void append(const int8_t* from, size_t step, const uint16_t* from_columns, uint32_t count) {
        std::memcpy(columns + quads * kQuad, from_columns, count * kQuad * sizeof(uint16_t));
        int8_t* to = values + quads * R * kQuad;
        if (step == R * kQuad) {
            std::memcpy(to, from, count * R * kQuad);
        } else {
            for (uint32_t i = 0; i < count; ++i) std::memcpy(to + i * R * kQuad, from + i * step, R * kQuad);
        }
        quads += count;
    }

    // off: what was cut off the second cell of pair 0 or 1 of a quad, 4 bytes from row to row.
    void cut(uint32_t quad, uint32_t pair, const int8_t* off) {
        int8_t* to = values + (quads + cuts / 2) * R * kQuad;
        uint16_t* to_columns = columns + (quads + cuts / 2) * kQuad;
        const uint16_t column = columns[quad * kQuad + 2 * pair + 1];
        if (cuts % 2 == 0) {
            std::memset(to, 0, R * kQuad);
            to_columns[2] = to_columns[3] = column;
        }
        for (int r = 0; r < R; ++r) to[r * kQuad + cuts % 2 * 2] = off[r * kQuad];
        to_columns[cuts % 2 * 2] = to_columns[cuts % 2 * 2 + 1] = column;
        ++cuts;
    }

    void close() {
        quads += (cuts + 1) / 2;
        cuts = 0;
    }
};

}  // namespace
}  // namespace lavolta
