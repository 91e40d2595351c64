// Linear layers on int8 quads where two products may not be added in 16 bits as they are: the quads of a few rows are copied, made
// harmless, and pass all tokens in parts.
#pragma once

#include "tiles.h"
#include "unsaturated.h"

namespace lavolta {
namespace {

// R rows of a part, and whether it is the first and the last of these rows: between two parts the sums wait in y.
template <int R>
struct PartRows {
    const HarmlessQuads<R>& quads;
    const int32_t* begin;  // (R,), minus 128 times the sum of each row's values
    size_t row;
    int rows;  // that are there
    bool first, last;
};

// T registers from number First of the bytes at u; `token` is that of register 0.
template <class V, int R, int First, int T, size_t Width>
__attribute__((noinline)) void part_tile(const LinearInt8Args& a, const PartRows<R>& part, const uint8_t* u, size_t token) {
    constexpr size_t step = register_step<V, Width>();
    token += step * First;
    const size_t stride = a.stride;
    float* const y = a.y + part.row * stride + token;
    typename V::Reg acc[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        const auto start = V::set1(part.begin[r]);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) acc[r][t] = start;
    }
    const int8_t* values = part.quads.values;
    const uint32_t* columns = part.quads.columns;
    for (const int8_t* const end = values + part.quads.quads * R * kQuad; values < end; values += 2 * R * kQuad) {
        add_broadcast_quad<V, R, First, T, Width>(acc, values, u, columns);
        add_broadcast_quad<V, R, First, T, Width>(acc, values + R * kQuad, u, columns + kQuad);
        columns += 2 * kQuad;
    }
    // Integers may be added in any order. What waits is added behind the products, so that sums are in registers before them.
    if (!part.first) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            if (r >= part.rows) break;
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) acc[r][t] = V::add(acc[r][t], V::load_sums(y + r * stride + t * step));
        }
    }
    if (part.last) return write_tile<V, R, T, step>(a, acc, part.row, part.rows, token);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
        if (r >= part.rows) break;
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) V::store_sums(y + r * stride + t * step, acc[r][t]);
    }
}

// Fetches what the next rows will write and add in a block of tokens: a sparse band is done before it could come by itself.
template <int R>
inline void fetch_rows(const LinearInt8Args& a, size_t row, size_t block) {
    const size_t end = a.token_end - block < kQuantBlock ? a.token_end : block + kQuantBlock;
    for (int r = 0; r < R && row + r < a.out_features; ++r) {
        for (size_t token = block; token < end; token += kTokenPad) {
            const size_t at = (row + r) * a.stride + token;
            __builtin_prefetch(a.y + at);
            if (a.residual) __builtin_prefetch(a.residual + at);
        }
    }
}

template <class V, int R>
void part_bands(const LinearInt8Args& a) {
    HarmlessQuads<R> quads;
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        fetch(a, band + kBandsAhead);
        uint32_t count = 0;
        for (uint32_t run = a.run_ptr[band]; run < a.run_ptr[band + 1]; ++run) count += a.runs[run].count;
        // Equal parts, so that none is too short to be worth its visit.
        const uint32_t parts = (count + kPartQuads - 1) / kPartQuads, most = parts ? (count + parts - 1) / parts : 0;
        for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
            const size_t row = size_t{band} * a.cell_rows + first_row;
            if (row >= a.out_features) break;
            bool first = true;
            const auto compute = [&](bool last) {
                alignas(16) int32_t begin[4];
                V::template make_harmless<R>(quads, begin);
                const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
                const PartRows<R> part{quads, begin, row, rows, first, last};
                for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
                    if (last) fetch_rows<R>(a, row + R, block);
                    block_tiles<V, R>(a, block, [&](auto shape, const uint8_t* u, size_t token) {
                        using S = decltype(shape);
                        part_tile<V, R, S::first, S::registers, S::width>(a, part, u, token);
                    });
                }
                quads.quads = 0;
                first = false;
                if (!last || a.activation == Activation::none) return;
                // Of all tokens at once: the activation's constants are loaded for more than a tile.
                using F = typename V::Float;
                const size_t at = row * a.stride + a.token_begin, registers = (a.token_end - a.token_begin + F::width - 1) / F::width;
                activate_rows<F>(a.y + at, a.residual ? a.residual + at : nullptr, a.stride, rows, registers, F::width, a.activation);
            };
            for (uint32_t run = a.run_ptr[band]; run < a.run_ptr[band + 1]; ++run) {
                size_t quad = a.runs[run].first;
                for (uint32_t left = a.runs[run].count; left > 0;) {
                    if (quads.quads == most) compute(false);
                    const uint32_t now = left < most - quads.quads ? left : most - quads.quads;
                    V::template append<R>(quads, a.values + (quad * a.cell_rows + first_row) * kQuad, a.cell_rows * kQuad,
                                          a.columns + quad * kQuad, now);
                    quad += now;
                    left -= now;
                }
            }
            compute(true);
        }
    }
}

}  // namespace
}  // namespace lavolta
