// Quads of int8 inputs: four kept columns, whichever they are, interleaved in registers and multiplied with the broadcast quads of R
// rows.
//
// A register of W bytes of one column holds tokens in the order of `token_slot`. Interleaving four columns gives four registers
// of whole quads, number j for tokens 16 j to 16 j + W / 4 - 1 of the block (32-byte registers: of each half of the block, 8
// tokens further; 16-byte registers, those of Arm: of each quarter, 4 tokens further). Groups of tokens that are not there are
// not interleaved. In a narrow block, whose rows are 16 bytes, one register is made of W / 4 neighboring tokens; a register of Arm
// is a row, and its quads are those of neighboring fours.
#pragma once

#include <cstring>

#include "../kernels.h"

namespace lavolta {
namespace {

// The bytes of a column, whose rows have Width of them.
template <size_t Width>
inline const uint8_t* row_of(const uint8_t* u, uint16_t column) {
    return u + column * Width;
}

// The same for a column that is counted in bytes of narrow rows, so that an address is computed where it is used.
template <size_t Width>
inline const uint8_t* row_of(const uint8_t* u, uint32_t narrow_bytes) {
    return u + size_t{narrow_bytes} * (Width / kNarrowBlock);
}

// x[0..T) = quads of register numbers First .. First + T - 1.
template <class V, int First, int T, class Column>
inline __attribute__((always_inline)) void interleave(typename V::Inputs (&x)[T], const uint8_t* u, const Column* columns) {
    const auto a = V::load(row_of<kQuantBlock>(u, columns[0])), b = V::load(row_of<kQuantBlock>(u, columns[1]));
    const auto c = V::load(row_of<kQuantBlock>(u, columns[2])), d = V::load(row_of<kQuantBlock>(u, columns[3]));
    constexpr int end = First + T;
    if constexpr (First < 2) {
        const auto ab = V::lo8(a, b), cd = V::lo8(c, d);
        if constexpr (First <= 0 && end > 0) x[0 - First] = V::inputs(V::lo16(ab, cd));
        if constexpr (First <= 1 && end > 1) x[1 - First] = V::inputs(V::hi16(ab, cd));
    }
    if constexpr (end > 2) {
        const auto ab = V::hi8(a, b), cd = V::hi8(c, d);
        if constexpr (First <= 2 && end > 2) x[2 - First] = V::inputs(V::lo16(ab, cd));
        if constexpr (First <= 3 && end > 3) x[3 - First] = V::inputs(V::hi16(ab, cd));
    }
}

// acc[r][t] += one quad of row r times its four columns, registers First to First + T - 1.
template <class V, int R, int First, int T, size_t Width, class Column>
inline __attribute__((always_inline)) void add_broadcast_quad(typename V::Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                              const Column* columns) {
    typename V::Inputs x[T];
    if constexpr (Width == kNarrowBlock) {
        static_assert(First == 0 && T == 1, "a narrow row has one register");
        x[0] = V::inputs(V::narrow(row_of<Width>(u, columns[0]), row_of<Width>(u, columns[1]), row_of<Width>(u, columns[2]),
                                   row_of<Width>(u, columns[3])));
    } else {
        interleave<V, First, T>(x, u, columns);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        int32_t quad;
        std::memcpy(&quad, values + r * kQuad, sizeof quad);
        const auto w = V::weights(quad);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = V::dot(acc[r][t], x[t], w);
    }
}

template <class V, int R, int First, int T, size_t Width>
inline __attribute__((always_inline)) void add_quad(typename V::Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                    const uint16_t* columns) {
    if constexpr (V::width == kNarrowBlock) {
        V::template add_quad<R, First, T, Width>(acc, values, u, columns);
    } else {
        add_broadcast_quad<V, R, First, T, Width>(acc, values, u, columns);
    }
}

// Tokens from one register of a row to the next.
template <class V, size_t Width>
constexpr size_t register_step() {
    return V::width == kNarrowBlock && Width == kNarrowBlock ? 4 : 16;
}

}  // namespace
}  // namespace lavolta
