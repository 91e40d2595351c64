// Linear layers on int8 quads for any register type: four kept columns, whichever they are, are interleaved in registers, then
// multiplied with the broadcast quads of R rows.
//
// A register of W bytes of one column holds tokens in the order of `token_slot`. Interleaving four columns gives four registers
// of whole quads, number j for tokens 16 j to 16 j + W / 4 - 1 of the block (32-byte registers: of each half of the block, 8
// tokens further). Groups of tokens that are not there are not interleaved.
#pragma once

#include <cstring>

#include "../math.h"

namespace lavolta {
namespace {

template <int N>
struct Number {
    static constexpr int value = N;
};

// x[0..T) = quads of register numbers First .. First + T - 1.
template <class V, int First, int T>
inline __attribute__((always_inline)) void interleave(typename V::Inputs (&x)[T], const uint8_t* u, const uint16_t* columns,
                                                      size_t stride) {
    const auto a = V::load(u + columns[0] * stride), b = V::load(u + columns[1] * stride);
    const auto c = V::load(u + columns[2] * stride), d = V::load(u + columns[3] * stride);
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

// Rows [first_row, first_row + R) of a band, T registers from number First of the `width` bytes at u; `token` is that of
// register 0.
template <class V, int R, int First, int T>
__attribute__((noinline)) void tile(const LinearInt8Args& a, uint32_t band, uint32_t first_row, const uint8_t* u, size_t token) {
    using F = typename V::Float;
    const size_t row = size_t{band} * a.cell_rows + first_row;
    const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
    typename V::Reg acc[R][T];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        const auto start = V::set1(r < rows ? -kQuantZero * a.row_sums[row + r] : 0);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = start;
    }
    for (uint32_t run = a.run_ptr[band]; run < a.run_ptr[band + 1]; ++run) {
        const size_t first = a.runs[run].first, count = a.runs[run].count;
        const uint16_t* columns = a.columns + first * kQuad;
        const int8_t* values = a.values + (first * a.cell_rows + first_row) * kQuad;
        for (size_t i = 0; i < count; ++i) {
            typename V::Inputs x[T];
            interleave<V, First, T>(x, u, columns, a.quant_stride);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                int32_t quad;
                std::memcpy(&quad, values + r * kQuad, sizeof quad);
                const auto w = V::weights(quad);
#pragma GCC unroll 16
                for (int t = 0; t < T; ++t) acc[r][t] = V::dot(acc[r][t], x[t], w);
            }
            columns += kQuad;
            values += a.cell_rows * kQuad;
        }
    }
    // The same operations in the same order as the reference: without an activation, the same bits.
    const bool plain = a.activation == Activation::none;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        if (r >= rows) break;
        const auto scale = F::set1(a.scale[row + r]), bias = F::set1(a.bias[row + r]);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const size_t at = token + 16 * (First + t);
            const auto factor = F::mul(scale, F::load(a.token_scale + at));
            auto y = F::add(F::mul(V::to_float(acc[r][t]), factor), bias);
            if (plain && a.residual) y = F::add(y, F::load(a.residual + (row + r) * a.stride + at));
            F::store(a.y + (row + r) * a.stride + at, y);
        }
    }
    if (plain) return;
    for (int r = 0; r < rows; ++r) {
        for (int t = 0; t < T; ++t) {
            const size_t at = (row + r) * a.stride + token + 16 * (First + t);
            const auto y = activate<F>(F::load(a.y + at), a.activation);
            F::store(a.y + at, a.residual ? F::add(y, F::load(a.residual + at)) : y);
        }
    }
}

// Most registers of tokens beside R rows.
template <class V, int R>
constexpr int widest() {
    return V::width == 64 ? (R == 8 ? 2 : 4) : (R == 1 ? 4 : 2);
}

template <class V>
constexpr int tallest() {
    return V::width == 64 ? 8 : 4;
}

// Registers [First, registers) of one load, `widest` at a time.
template <class V, int R, int First = 0>
inline void tiles(const LinearInt8Args& a, uint32_t band, uint32_t row, const uint8_t* u, size_t token, int registers) {
    constexpr int wide = widest<V, R>();
    if constexpr (First < 4) {
        const int left = registers - First;
        if (left <= 0) return;
        if (left >= wide) {
            tile<V, R, First, wide>(a, band, row, u, token);
            return tiles<V, R, First + wide>(a, band, row, u, token, registers);
        }
        if constexpr (wide > 1) {
            if (left == 1) return tile<V, R, First, 1>(a, band, row, u, token);
        }
        if constexpr (wide > 2 && First == 0) {
            if (left == 2) return tile<V, R, 0, 2>(a, band, row, u, token);
            return tile<V, R, 0, 3>(a, band, row, u, token);
        }
    }
}

template <class V, int R>
void bands(const LinearInt8Args& a) {
    for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
        for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
            for (uint32_t row = 0; row < a.cell_rows && size_t{band} * a.cell_rows + row < a.out_features; row += R) {
                // One load of a whole block, or one for each half of it: tokens 0-7 and 8-15 of every 16.
                for (size_t token = block; token < block + 16 && token < a.token_end; token += V::width / kQuad) {
                    const size_t groups = (a.token_end - token + 15) / 16;
                    const int registers = groups < 4 ? static_cast<int>(groups) : 4;
                    tiles<V, R>(a, band, row, a.u + block + (token - block) * kQuad, token, registers);
                }
            }
        }
    }
}

template <class V>
void linear_int8(const LinearInt8Args& a) {
    switch (a.cell_rows) {
        case 1:
            return bands<V, 1>(a);
        case 2:
            return bands<V, 2>(a);
        case 4:
            return bands<V, 4>(a);
        default:
            return bands<V, tallest<V>()>(a);
    }
}

}  // namespace
}  // namespace lavolta
