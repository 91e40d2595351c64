// How the tokens of a block become register tiles, and what both walks fetch ahead.
#pragma once

#include "quads.h"
#include "write.h"

namespace lavolta {
namespace {

// Registers [first, first + registers) of rows of `width` bytes.
template <int First, int T, size_t Width>
struct TileShape {
    static constexpr int first = First, registers = T;
    static constexpr size_t width = Width;
};

// Most registers of tokens beside R rows.
template <class V, int R>
constexpr int widest() {
    if constexpr (V::width == kNarrowBlock) return V::widest(R);
    return V::width == 64 ? (R == 8 ? 2 : 4) : (R == 1 ? 4 : 2);
}

template <class V>
constexpr int tallest() {
    if constexpr (V::width == kNarrowBlock) return V::tallest;
    return V::width == 64 ? 8 : 4;
}

// body(TileShape) for registers [First, registers) of one load, `widest` at a time.
template <class V, int R, size_t Width, int First = 0, class Body>
inline void for_tiles(int registers, const Body& body) {
    constexpr int wide = widest<V, R>();
    if constexpr (First < 4) {
        const int left = registers - First;
        if (left <= 0) return;
        if (left >= wide) {
            body(TileShape<First, wide, Width>{});
            return for_tiles<V, R, Width, First + wide>(registers, body);
        }
        if constexpr (wide > 1) {
            if (left == 1) return body(TileShape<First, 1, Width>{});
        }
        if constexpr (wide > 2 && First == 0) {
            if (left == 2) return body(TileShape<0, 2, Width>{});
            return body(TileShape<0, 3, Width>{});
        }
    }
}

// body(TileShape, u, token) for the tokens of the block from `block` on; `token` is that of register 0 of the bytes at u.
template <class V, int R, class Body>
inline void block_tiles(const LinearInt8Args& a, size_t block, const Body& body) {
    constexpr size_t lanes = V::width / kQuad;
    const uint8_t* u = a.u + block * a.in_features;
    const size_t tokens = a.token_end - block;
    if (tokens <= kNarrowBlock) {
        if constexpr (V::width == kNarrowBlock) {
            for_tiles<V, R, kNarrowBlock>(static_cast<int>((tokens + 3) / 4), [&](auto shape) { body(shape, u, block); });
        } else {
            for (size_t t = 0; t < tokens; t += lanes) body(TileShape<0, 1, kNarrowBlock>{}, u + t, block + t);
        }
        return;
    }
    // One load of a whole block, or one for each half or quarter of it: tokens 0-7 and 8-15 of every 16.
    for (size_t t = 0; t < kNarrowBlock; t += lanes) {
        const size_t groups = (tokens - t + 15) / 16;
        for_tiles<V, R, kQuantBlock>(groups < 4 ? static_cast<int>(groups) : 4,
                                     [&](auto shape) { body(shape, u + t * kQuad, block + t); });
    }
}

// A sparser level skips what only denser ones keep, so every band begins somewhere new: its first weights are fetched while the
// bands before it are computed. From there on the hardware follows by itself.
constexpr uint32_t kBandsAhead = 2;
constexpr size_t kFetchedBytes = 1024;

inline void fetch(const LinearInt8Args& a, uint32_t band) {
    if (band >= a.band_end) return;
    const auto lines = [](const void* from, size_t bytes) {
        for (size_t b = 0; b < bytes && b < kFetchedBytes; b += 64) __builtin_prefetch(static_cast<const char*>(from) + b);
    };
    const size_t row_bytes = a.cell_rows * kQuad;
    for (uint32_t r = a.run_ptr[band]; r < a.run_ptr[band + 1]; ++r) {
        const Run& run = a.runs[r];
        lines(a.values + run.first * row_bytes, run.count * row_bytes);
        lines(a.columns + run.first * kQuad, run.count * kQuad * sizeof(uint16_t));
    }
}

}  // namespace
}  // namespace lavolta
