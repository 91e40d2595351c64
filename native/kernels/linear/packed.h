// Cells of whole register tiles, many tokens, few registers: a walk that reads activations from the first-level cache.
//
// A panel of bands passes over blocks of columns. The activations of a block and a tile of tokens are copied side by side, where
// they fill whole cache lines and stay in the first-level cache while every band of the panel visits them; the sums wait in y
// between two blocks. A band goes on while its next cell is in the block, so it adds its products in stored order: the bits are
// those of the straight walk. A visit costs as much as about fifteen cells, so cells should lie block by block, as packing lays
// them.
#pragma once

#include "../activate_rows.h"
#include "blocked.h"

namespace lavolta {
namespace {

// Columns of a block: with 24 tokens, 24 KiB. Packing orders cells by blocks of as many.
constexpr uint32_t kBlockColumns = 256;
// Rows of a panel, which share the copies: more would take their weights and sums out of the second-level cache.
constexpr uint32_t kPackedRows = 1024;
constexpr uint32_t kPackedBands = kPackedRows / 4;

// The cells of a band that are in a block, from `cell` of `run` on through as many runs as it takes. The first visit of a band
// begins its sums, the last one ends them.
struct Visit {
    uint32_t run, cell, count, band;
    bool first, last;
};

inline uint32_t block_columns(uint32_t in_features) {
    const uint32_t blocks = (in_features + kBlockColumns - 1) / kBlockColumns;
    return (in_features + blocks - 1) / blocks;
}

// Moves to the first run with cells from `at.run` on; false, and no cells, where none is left.
inline bool enter_run(const LinearArgs& a, uint32_t band, Cursor& at) {
    for (; at.run < a.run_ptr[band + 1]; ++at.run) {
        const Run& run = a.runs[at.run];
        at.cell = run.first;
        at.end = run.first + run.count;
        if (run.count > 0) return true;
    }
    at.cell = at.end = 0;
    return false;
}

// Moves over the cells of `band` that are in columns [low, low + width) and returns how many they are; where the band has no
// cells left, `at.end` is 0.
template <class V>
inline uint32_t take_cells(const LinearArgs& a, uint32_t band, Cursor& at, uint32_t low, uint32_t width) {
    uint32_t cells = 0;
    for (;;) {
        const uint32_t more = V::columns_within(a.columns + at.cell, at.end - at.cell, low, width);
        cells += more;
        at.cell += more;
        if (at.cell < at.end) return cells;
        ++at.run;
        if (!enter_run(a, band, at)) return cells;
    }
}

// Whether the walk below is the faster one, judged by the first bands. Measured on AVX2, where tiles of two registers of tokens do
// not gain. A layer whose activations nearly fit the first-level cache without a copy needs longer visits, and the copy of a
// block, which costs as much as 200 cells of 4 rows, wants rows that share it.
template <class V, int Most>
bool copies_pay(const LinearArgs& a) {
    const size_t registers = (a.token_end - a.token_begin + V::width - 1) / V::width;
    if (a.band_begin == a.band_end || registers <= 2 * ((registers + Most - 1) / Most)) return false;
    static const size_t cache_bytes = first_level_cache_bytes();
    const bool wide = a.in_features * size_t{64} > cache_bytes;
    const uint32_t rows = (a.band_end - a.band_begin) * a.cell_rows;
    // Cells of a visit.
    const uint32_t least = (wide ? 12 : 64) + 800 / (rows < kPackedRows ? rows : kPackedRows);
    const uint32_t width = block_columns(a.in_features);
    constexpr uint32_t enough = 8;
    uint32_t cells = 0, visits = 0;
    for (uint32_t band = a.band_begin; band < a.band_end && visits < enough; ++band) {
        Cursor at{a.run_ptr[band], 0, 0};
        for (bool more = enter_run(a, band, at); more && visits < enough; more = at.end > 0, ++visits) {
            cells += take_cells<V>(a, band, at, a.columns[at.cell] / width * width, width);
        }
    }
    return visits > 0 && cells >= least * visits;
}

// Copies columns [low, low + columns) and returns where column 0 of the copy would be.
template <class V, int T>
const float* copy_block(const LinearArgs& a, uint32_t low, uint32_t columns, size_t token, float* to) {
    // Not the address of an array before it: arithmetic on integers.
    const uintptr_t origin = reinterpret_cast<uintptr_t>(to) - size_t{low} * T * V::width * sizeof(float);
    const float* x = a.x + size_t{low} * a.x_stride + token;
    for (uint32_t column = 0; column < columns; ++column, x += a.x_stride, to += T * V::width) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) V::store(to + t * V::width, V::load(x + t * V::width));
    }
    return reinterpret_cast<const float*>(origin);
}

// All rows of a visit. x: the copy of the block, from where its column 0 would be.
template <class V, int R, int T>
inline __attribute__((always_inline)) void visit_rows(const LinearArgs& a, const Visit& visit, const float* x, size_t token) {
    for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
        const size_t row = size_t{visit.band} * a.cell_rows + first_row;
        if (row >= a.out_features) break;
        const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
        float* y = a.y + row * a.stride + token;
        typename V::Reg acc[R][T];
        if (visit.first) {
            start<V>(acc, a.bias + row, rows);
        } else {
            resume<V>(acc, y, a.stride, rows);
        }
        const Run* run = a.runs + visit.run;
        size_t cell = visit.cell;
        for (uint32_t left = visit.count; left > 0;) {
            const uint32_t rest = run->first + run->count - static_cast<uint32_t>(cell), count = left < rest ? left : rest;
            accumulate_near<V, R, T>(acc, a.values + cell * a.cell_rows + first_row, a.cell_rows, a.columns + cell, count, x,
                                     T * V::width);
            left -= count;
            if (left > 0) cell = (++run)->first;
        }
        if (visit.last && a.residual && a.activation == Activation::none) {
            finish<V>(acc, y, a.residual + row * a.stride + token, a.stride, rows, Activation::none);
        } else {
            pause<V>(acc, y, a.stride, rows);
        }
    }
}

template <class V, int R, int T>
__attribute__((noinline)) void visit_block(const LinearArgs& a, const Visit* visits, uint32_t count, const float* x, size_t token) {
    for (uint32_t i = 0; i < count; ++i) visit_rows<V, R, T>(a, visits[i], x, token);
}

// Bands [band_begin, band_end), at most kPackedRows rows. tiles(body): body(Count<registers>, token) for every tile of tokens.
template <class V, int R, int Most, class Tiles>
void packed_panel(const LinearArgs& a, uint32_t band_begin, uint32_t band_end, const Tiles& tiles) {
    alignas(64) float x[kBlockColumns * Most * V::width];
    Cursor cursors[kPackedBands];
    Visit visits[kPackedBands];
    uint32_t unfinished = band_end - band_begin;
    for (uint32_t band = band_begin; band < band_end; ++band) {
        Cursor& at = cursors[band - band_begin] = {a.run_ptr[band], 0, 0};
        enter_run(a, band, at);
    }
    const uint32_t width = block_columns(a.in_features);
    for (bool first = true; unfinished > 0;) {
        for (uint32_t low = 0; low < a.in_features; low += width, first = false) {
            uint32_t count = 0;
            for (uint32_t band = band_begin; band < band_end; ++band) {
                Cursor& at = cursors[band - band_begin];
                if (!first && at.end == 0) continue;
                Visit& visit = visits[count] = {at.run, at.cell, 0, band, first, false};
                visit.count = take_cells<V>(a, band, at, low, width);
                visit.last = at.end == 0;
                if (visit.count == 0 && !first) continue;
                ++count;
                unfinished -= visit.last;
            }
            if (count == 0) continue;
            const uint32_t columns = a.in_features - low < width ? a.in_features - low : width;
            tiles([&](auto t, size_t token) {
                constexpr int T = decltype(t)::value;
                visit_block<V, R, T>(a, visits, count, copy_block<V, T>(a, low, columns, token, x), token);
            });
        }
    }
    if (a.activation == Activation::none) return;
    const size_t row = size_t{band_begin} * a.cell_rows, end = size_t{band_end} * a.cell_rows;
    const size_t at = row * a.stride + a.token_begin;
    activate_rows<V>(a.y + at, a.residual ? a.residual + at : nullptr, a.stride,
                     static_cast<int>((end < a.out_features ? end : a.out_features) - row),
                     (a.token_end - a.token_begin + V::width - 1) / V::width, V::width, a.activation);
}

template <class V, int R, int Most, class Tiles>
void packed_bands(const LinearArgs& a, const Tiles& tiles) {
    const uint32_t step = kPackedRows / a.cell_rows;
    for (uint32_t band = a.band_begin; band < a.band_end; band += step) {
        packed_panel<V, R, Most>(a, band, a.band_end - band < step ? a.band_end : band + step, tiles);
    }
}

}  // namespace
}  // namespace lavolta
