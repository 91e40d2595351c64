// Linear layers on int8 quads for any register type.
#pragma once

#include "parts.h"
#include "tiles.h"

namespace lavolta {
namespace {

// The quads of R rows of a band, in runs. Inputs are u = q + 128, so 128 times the sum of a row's values is taken off what they
// give.
struct Source {
    const int8_t* values;     // of the first row, `step` bytes from a quad to the next
    const uint16_t* columns;  // (quads, 4)
    const Run *runs, *runs_end;
    const int32_t* begin;  // (R,), minus 128 times the sum of each row's values
    size_t step;
};

// Rows [row, row + R) of the layer, T registers from number First of the bytes at u; `token` is that of register 0.
template <class V, int R, int First, int T, size_t Width>
__attribute__((noinline)) void tile(const LinearInt8Args& a, const Source& source, size_t row, const uint8_t* u, size_t token) {
    const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
    // Few sums would wait for their own last product: twice as many take turns. Integers may be added in any order.
    constexpr bool few = R * T <= 4;
    typename V::Reg acc[R][T];
    [[maybe_unused]] typename V::Reg more[R][T];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        const auto start = V::set1(V::zero == 0 ? 0 : source.begin[r]);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            acc[r][t] = start;
            if constexpr (few) more[r][t] = V::set1(0);
        }
    }
    for (const Run* run = source.runs; run < source.runs_end; ++run) {
        const size_t first = run->first, count = run->count;
        const uint16_t* columns = source.columns + first * kQuad;
        const int8_t* values = source.values + first * source.step;
        const size_t step = source.step;
        size_t i = 0;
        if constexpr (few) {
            for (; i + 2 <= count; i += 2) {
                add_quad<V, R, First, T, Width>(acc, values + i * step, u, columns + i * kQuad);
                add_quad<V, R, First, T, Width>(more, values + (i + 1) * step, u, columns + (i + 1) * kQuad);
            }
        }
        for (; i < count; ++i) add_quad<V, R, First, T, Width>(acc, values + i * step, u, columns + i * kQuad);
    }
    if constexpr (few) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) acc[r][t] = V::add(acc[r][t], more[r][t]);
        }
    }
    constexpr size_t step = register_step<V, Width>();
    write_tile<V, R, T, step>(a, acc, row, rows, token + step * First);
    if (a.activation == Activation::none) return;
    const size_t at = row * a.stride + token + step * First;
    activate_rows<typename V::Float>(a.y + at, a.residual ? a.residual + at : nullptr, a.stride, rows, T, step, a.activation);
}

// begin (cell_rows,): minus V::zero times the sum of each row's values in the runs. Lanes are rows of quads, one after another.
template <class V>
inline void row_begins(const LinearInt8Args& a, const Run* runs, const Run* runs_end, int32_t (&begin)[kMostCellRows]) {
    constexpr size_t lanes = V::width / kQuad;
    const size_t rows = a.cell_rows, quad_bytes = rows * kQuad;
    const size_t step = quad_bytes > V::width ? quad_bytes : V::width;
    std::memset(begin, 0, sizeof begin);
    for (size_t part = 0; part < step; part += V::width) {
        // Four sums take turns: one would wait for itself.
        typename V::Reg sums[4] = {V::set1(0), V::set1(0), V::set1(0), V::set1(0)};
        for (const Run* run = runs; run < runs_end; ++run) {
            const int8_t* at = a.values + run->first * quad_bytes + part;
            size_t bytes = run->count * quad_bytes;
            for (; bytes >= 4 * step; bytes -= 4 * step, at += 4 * step) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) sums[i] = V::add_weights(sums[i], at + i * step);
            }
            for (; bytes >= step; bytes -= step, at += step) sums[0] = V::add_weights(sums[0], at);
            if (bytes == 0) continue;
            int8_t last[V::width] = {};
            std::memcpy(last, at, bytes);
            sums[1] = V::add_weights(sums[1], last);
        }
        const auto sum = V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3]));
        int32_t of_lanes[lanes];
        std::memcpy(of_lanes, &sum, sizeof sum);
        for (size_t lane = 0; lane < lanes; ++lane) begin[(part / kQuad + lane) % rows] -= V::zero * of_lanes[lane];
    }
}

template <class V, int R>
void bands(const LinearInt8Args& a) {
    int32_t begin[kMostCellRows] = {};
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        fetch(a, band + kBandsAhead);
        const Run* const runs = a.runs + a.run_ptr[band];
        const Run* const runs_end = a.runs + a.run_ptr[band + 1];
        if constexpr (V::zero != 0) row_begins<V>(a, runs, runs_end, begin);
        for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
            for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
                const size_t row = size_t{band} * a.cell_rows + first_row;
                if (row >= a.out_features) break;
                const Source source{a.values + first_row * kQuad, a.columns, runs, runs_end, begin + first_row, a.cell_rows * kQuad};
                block_tiles<V, R>(a, block, [&](auto shape, const uint8_t* u, size_t token) {
                    using S = decltype(shape);
                    tile<V, R, S::first, S::registers, S::width>(a, source, row, u, token);
                });
            }
        }
    }
}

template <class V, int R>
inline void bands_of(const LinearInt8Args& a) {
    if constexpr (V::saturates) {
        part_bands<V, R>(a);
    } else {
        bands<V, R>(a);
    }
}

template <class V>
void linear_int8(const LinearInt8Args& a) {
    switch (a.cell_rows) {
        case 1:
            return bands_of<V, 1>(a);
        case 2:
            return bands_of<V, 2>(a);
        case 4:
            return bands_of<V, 4>(a);
        default:
            return bands_of<V, tallest<V>()>(a);
    }
}

}  // namespace
}  // namespace lavolta
