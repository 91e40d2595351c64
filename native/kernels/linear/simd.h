// Sparse and dense linear layers for any register type. A band is walked in row tiles, a token range in register tiles.
//
// Tile shapes, chosen by measurement (benchmarks/engine_levels.py): tall cells hold 8 rows x 3 registers where there are 32
// registers (AVX-512, aarch64) or 4 x 3 where there are 16 (AVX2, ARMv7); lower cells trade rows for tokens, so that enough
// sums are independent to hide the latency of a multiply-add.
#pragma once

#include "packed.h"

namespace lavolta {
namespace {

// Registers of tokens in the widest tile of R rows. NEON does not multiply from memory: of 16 registers some hold tokens.
template <class V, int R>
constexpr int most_registers() {
    if (V::registers == 32) return R == 8 ? 3 : R == 4 ? 6 : 8;
    if (V::multiplies_lanes) return R == 4 ? 3 : R == 2 ? 5 : 6;
    return R == 4 ? 3 : R == 2 ? 6 : 8;
}

template <class V>
constexpr int tallest() {
    return V::registers == 32 ? 8 : 4;
}

// Rows [first_row, first_row + R) of one band.
template <class V, int R, int T>
__attribute__((noinline)) void sparse_tile(const LinearArgs& a, uint32_t band, uint32_t first_row, size_t token) {
    const size_t row = size_t{band} * a.cell_rows + first_row;
    const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
    typename V::Reg acc[R][T];
    start<V>(acc, a.bias + row, rows);
    const uint32_t runs_end = a.run_ptr[band + 1];
    for (uint32_t r = a.run_ptr[band]; r < runs_end; ++r) {
        const size_t cell = a.runs[r].first, count = a.runs[r].count;
        // Of the columns what follows the run, which the next band will read. A fetch never faults.
        __builtin_prefetch(a.columns + cell + count);
        __builtin_prefetch(a.columns + cell + count + 32);
        accumulate<V, R, T, true>(acc, a.values + cell * a.cell_rows + first_row, 1, a.cell_rows, a.columns + cell, count,
                                  a.x + token, a.x_stride);
    }
    finish<V>(acc, a.y + row * a.stride + token, a.residual ? a.residual + row * a.stride + token : nullptr, a.stride, rows,
              a.activation);
}

template <class V, int R, int T>
__attribute__((noinline)) void dense_tile(const DenseArgs& a, size_t row, size_t token) {
    typename V::Reg acc[R][T];
    start<V>(acc, a.bias + row, R);
    accumulate<V, R, T, false>(acc, a.weight + row * a.in_features, a.in_features, 1, nullptr, a.in_features, a.x + token,
                               a.stride);
    finish<V>(acc, a.y + row * a.stride + token, nullptr, a.stride, R, a.activation);
}

template <int T>
struct Count {
    static constexpr int value = T;
};

// body(Count<registers>): a run-time count, 1 to Most, as a compile-time one.
template <int Most, class Body>
inline void with_registers(int registers, const Body& body) {
    if constexpr (Most > 0) {
        if (registers == Most) return body(Count<Most>{});
        with_registers<Most - 1>(registers, body);
    }
}

// The tokens of [begin, end) as register tiles of about equal width, none wider than R rows and `most` allow.
template <class V, int R, class Body>
inline void for_token_tiles(size_t begin, size_t end, const Body& body, size_t most = most_registers<V, R>()) {
    const size_t registers = (end - begin + V::width - 1) / V::width;
    const size_t tiles = (registers + most - 1) / most;
    for (size_t tile = 0; tile < tiles; ++tile) {
        const size_t first = registers * tile / tiles;
        const size_t last = registers * (tile + 1) / tiles;
        with_registers<most_registers<V, R>()>(static_cast<int>(last - first), [&](auto t) { body(t, begin + first * V::width); });
    }
}

// With few registers a tile multiplies so few weights that it waits for its tokens. Measured on AVX2 with tiles of 4 rows.
template <class V, int R>
constexpr bool waits_for_tokens = V::registers == 16 && !V::multiplies_lanes && R == 4;

template <class V, int R>
void sparse_bands(const LinearArgs& a) {
    // Where the first-level cache cannot keep all tokens, tiles as wide as a cache line read no line in vain, and some bands share
    // the lines that it keeps.
    constexpr bool few_registers = waits_for_tokens<V, R>;
    constexpr size_t line_registers = 64 / (V::width * sizeof(float));
    static const size_t cache_bytes = first_level_cache_bytes();
    if constexpr (few_registers) {
        constexpr int most = most_registers<V, R>();
        if (copies_pay<V, most>(a)) {
            return packed_bands<V, R, most>(a, [&](const auto& body) { for_token_tiles<V, R>(a.token_begin, a.token_end, body); });
        }
    }
    const bool share = few_registers && a.in_features * size_t{64} > cache_bytes;
    const uint32_t step = share ? 8 : 1;
    for (uint32_t begin = a.band_begin; begin < a.band_end; begin += step) {
        const uint32_t end = a.band_end - begin < step ? a.band_end : begin + step;
        const auto body = [&](auto t, size_t token) {
            for (uint32_t band = begin; band < end; ++band) {
                for (uint32_t row = 0; row < a.cell_rows && size_t{band} * a.cell_rows + row < a.out_features; row += R) {
                    sparse_tile<V, R, decltype(t)::value>(a, band, row, token);
                }
            }
        };
        for_token_tiles<V, R>(a.token_begin, a.token_end, body, share ? line_registers : most_registers<V, R>());
    }
}

// Cells of R rows, by the faster walk.
template <class V, int R>
void low_bands(const LinearArgs& a) {
    if (!visits_pay<V, R, most_registers<V, R>()>(a)) return sparse_bands<V, R>(a);
    for_token_tiles<V, R>(a.token_begin, a.token_end, [&](auto t, size_t token) {
        for (uint32_t band = a.band_begin; band < a.band_end; band += kPanelBands) {
            sparse_panel<V, R, decltype(t)::value>(a, band, a.band_end - band < kPanelBands ? a.band_end : band + kPanelBands, token);
        }
    });
}

template <class V>
void linear(const LinearArgs& a) {
    constexpr int tall = tallest<V>();
    switch (a.cell_rows) {
        case 1:
            return low_bands<V, 1>(a);
        case 2:
            return low_bands<V, 2>(a);
        case 4:
            return sparse_bands<V, 4>(a);
        default:
            return sparse_bands<V, tall>(a);
    }
}

// Where activations are copied to the first-level cache, weights pass once for each call: few calls gain more than activations
// that stay in the second.
template <class V>
size_t linear_bytes(uint32_t cell_rows) {
    return waits_for_tokens<V, tallest<V>()> && cell_rows >= 4 ? 4 * kCachedBytes : kCachedBytes;
}

template <class V, int R>
size_t dense_rows(const DenseArgs& a, size_t row) {
    for (; row + R <= a.row_end; row += R) {
        for_token_tiles<V, R>(a.token_begin, a.token_end, [&](auto t, size_t token) {
            dense_tile<V, R, decltype(t)::value>(a, row, token);
        });
    }
    return row;
}

template <class V>
void dense(const DenseArgs& a) {
    const size_t row = dense_rows<V, tallest<V>()>(a, a.row_begin);
    dense_rows<V, 1>(a, row);
}

}  // namespace
}  // namespace lavolta
