// Cells of whole register tiles, many tokens, few registers: a walk that reads activations from the first-level cache.
//
// A panel of bands passes over blocks of columns. The activations of a block and a tile of tokens are copied side by side, where
// they fill whole cache lines and stay in the first-level cache while every band of the panel visits them; the sums wait in y
// between two blocks. A band goes on while its next cell is in the block, so it adds its products in stored order: the bits are
// those of the straight walk. A visit costs as much as about fifteen cells, so cells should lie block by block, as packing lays
// them.
#pragma once

#include "blocked.h"

namespace lavolta {
namespace {

// Columns of a block: with 24 tokens, 24 KiB. Packing orders cells by blocks of as many.
constexpr uint32_t kBlockColumns = 256;
constexpr uint32_t kPackedRows = 512;
constexpr uint32_t kPackedBands = kPackedRows / 4;
constexpr uint32_t kVisits = 4 * kPackedBands;

// The cells of a band that are in a block and one run. The first visit of a band begins its sums, the last one ends them.
struct Visit {
    uint32_t cell, count, band;
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

// Appends the visits of `band` to columns [low, low + width) while fewer than `most` are listed; what does not fit waits for the
// next pass. Returns whether the band has no cells left.
template <class V>
bool list_visits(const LinearArgs& a, uint32_t band, Cursor& at, uint32_t low, uint32_t width, bool first, Visit* visits,
                 uint32_t& count, uint32_t most) {
    for (bool begins = first; count < most; begins = false) {
        const uint32_t cells = V::columns_within(a.columns + at.cell, at.end - at.cell, low, width);
        if (cells == 0 && !begins) return false;
        Visit& visit = visits[count++] = {at.cell, cells, band, begins, false};
        at.cell += cells;
        if (at.cell < at.end) continue;
        ++at.run;
        if (enter_run(a, band, at)) continue;
        visit.last = true;
        return true;
    }
    return false;
}

enum class Walk : uint8_t { straight, in_place, gathered };

// The fastest walk, judged by the first bands. Measured on AVX2, where tiles of two registers of tokens do not gain. A layer whose
// activations nearly fit the first-level cache without a copy needs longer visits, and the copy of a block, which costs as much as
// 200 cells of 4 rows, wants rows that share it. Weights of short visits are gathered where there is room.
template <class V, int Most>
Walk choose_walk(const LinearArgs& a) {
    const size_t registers = (a.token_end - a.token_begin + V::width - 1) / V::width;
    if (a.band_begin == a.band_end || registers <= 2 * ((registers + Most - 1) / Most)) return Walk::straight;
    static const size_t cache_bytes = first_level_cache_bytes();
    const bool wide = a.in_features * size_t{64} > cache_bytes;
    const uint32_t rows = (a.band_end - a.band_begin) * a.cell_rows;
    // Cells of a visit.
    const uint32_t least = (wide ? 12 : 64) + 800 / (rows < kPackedRows ? rows : kPackedRows);
    constexpr uint32_t short_visit = 60;
    const uint32_t width = block_columns(a.in_features);
    constexpr uint32_t enough = 8;
    uint32_t cells = 0, visits = 0;
    for (uint32_t r = a.run_ptr[a.band_begin]; r < a.run_ptr[a.band_end] && visits < enough; ++r) {
        for (uint32_t cell = a.runs[r].first, end = cell + a.runs[r].count; cell < end; ++visits) {
            const uint32_t block = a.columns[cell] / width * width;
            const uint32_t count = V::columns_within(a.columns + cell, end - cell, block, width);
            cells += count;
            cell += count;
        }
    }
    if (visits == 0 || cells < least * visits) return Walk::straight;
    const bool fits = a.scratch && size_t{a.in_features} * a.cell_rows <= kGatheredFloats;
    return fits && cells < short_visit * visits ? Walk::gathered : Walk::in_place;
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

// Where visit i fetches weights: kAheadBytes ahead where it is long, else the cells of a later visit at the same place, since the
// hardware follows no jump from one short visit to the next.
inline Ahead fetch_ahead(const LinearArgs& a, const Visit* visits, uint32_t i, uint32_t count, uint32_t cells_ahead) {
    const ptrdiff_t cell_bytes = static_cast<ptrdiff_t>(sizeof(float) * a.cell_rows);
    const Visit& visit = visits[i];
    const auto bytes = [&](uint32_t to, uint32_t from) { return (static_cast<ptrdiff_t>(to) - static_cast<ptrdiff_t>(from)) * cell_bytes; };
    if (visit.count > cells_ahead) {
        const Visit& next = visits[i + 1 < count ? i + 1 : i];
        __builtin_prefetch(a.columns + next.cell);
        __builtin_prefetch(a.columns + next.cell + 32);
        return {visit.count - cells_ahead, bytes(next.cell, visit.cell + visit.count)};
    }
    const uint32_t step = visit.count * 2 > cells_ahead ? 1 : visit.count * 4 > cells_ahead ? 2 : 4;
    const Visit& later = visits[i + step < count ? i + step : count - 1];
    __builtin_prefetch(a.columns + later.cell);
    __builtin_prefetch(a.columns + later.cell + later.count);
    // What is longer than this visit, by lines.
    const char* const end = reinterpret_cast<const char*>(a.values + size_t{later.cell + later.count} * a.cell_rows);
    for (const char* at = reinterpret_cast<const char*>(a.values + size_t{later.cell + visit.count} * a.cell_rows); at < end; at += 64) {
        __builtin_prefetch(at);
    }
    return {0, bytes(later.cell, visit.cell) - static_cast<ptrdiff_t>(kAheadBytes)};
}

// All rows of a visit. values, columns: of its first cell; x: the copy of the block, from where its column 0 would be.
template <class V, int R, int T, class Cells>
inline __attribute__((always_inline)) void visit_rows(const LinearArgs& a, const Cells& visit, const float* values,
                                                      const uint16_t* columns, const float* x, size_t token, Ahead ahead) {
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
        accumulate<V, R, T, true>(acc, values + first_row, 1, a.cell_rows, columns, visit.count, x, T * V::width, ahead);
        if (visit.last) {
            finish<V>(acc, y, a.residual ? a.residual + row * a.stride + token : nullptr, a.stride, rows, a.activation);
        } else {
            pause<V>(acc, y, a.stride, rows);
        }
    }
}

template <class V, int R, int T>
__attribute__((noinline)) void visit_block(const LinearArgs& a, const Visit* visits, uint32_t count, const float* x, size_t token) {
    const uint32_t cells_ahead = static_cast<uint32_t>(kAheadBytes / (sizeof(float) * a.cell_rows));
    for (uint32_t i = 0; i < count; ++i) {
        const Visit visit = visits[i];
        visit_rows<V, R, T>(a, visit, a.values + size_t{visit.cell} * a.cell_rows, a.columns + visit.cell, x, token,
                            fetch_ahead(a, visits, i, count, cells_ahead));
    }
}

// Bands [band_begin, band_end), at most kPackedRows rows. tiles(body): body(Count<registers>, token) for every tile of tokens.
template <class V, int R, int Most, class Tiles>
void packed_panel(const LinearArgs& a, uint32_t band_begin, uint32_t band_end, const Tiles& tiles) {
    alignas(64) float x[kBlockColumns * Most * V::width];
    Cursor cursors[kPackedBands];
    Visit visits[kVisits];
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
                // Every later band finds room for its first visit.
                const uint32_t most = kVisits - (band_end - band - 1);
                unfinished -= list_visits<V>(a, band, at, low, width, first, visits, count, most);
            }
            if (count == 0) continue;
            const uint32_t columns = a.in_features - low < width ? a.in_features - low : width;
            tiles([&](auto t, size_t token) {
                constexpr int T = decltype(t)::value;
                visit_block<V, R, T>(a, visits, count, copy_block<V, T>(a, low, columns, token, x), token);
            });
        }
    }
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
