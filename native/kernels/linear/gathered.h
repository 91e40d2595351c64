// Cells of whole register tiles, many tokens, few registers, short visits: the walk of packed.h over weights that lie together.
//
// A sparse level keeps a few cells of every block and skips the others, which are in the file beside them. Those jumps cost as much
// as the products: hardware fetches nothing ahead, pages and cache sets are those of the dense layer. The cells of a panel are
// therefore copied first, in the order in which all tiles of tokens visit them.
#pragma once

#include <cstring>

#include "packed.h"

namespace lavolta {
namespace {

// The cells of a band that are in the block of columns from `low` on, whatever runs they are from.
struct GatheredVisit {
    uint32_t low, count, band;
    bool first, last;
};

static_assert(sizeof(GatheredVisit) == 4 * sizeof(float), "what kLinearScratch counts with");

// A panel: `values` has room for kGatheredFloats, `columns` for as many cells of 4 rows, `visits` for one of each cell and band.
struct Gathered {
    float* values;
    uint16_t* columns;
    GatheredVisit* visits;
    size_t cells, count;

    explicit Gathered(float* scratch)
        : values(scratch),
          columns(reinterpret_cast<uint16_t*>(scratch + kGatheredFloats)),
          visits(reinterpret_cast<GatheredVisit*>(scratch + kGatheredFloats + kGatheredFloats / 8)),
          cells(0),
          count(0) {}
};

// Appends the cells of `band` from `at` on that are in columns [low, low + width). Returns whether the band has no cells left.
template <class V>
bool gather_visit(const LinearArgs& a, uint32_t band, Cursor& at, uint32_t low, uint32_t width, bool first, Gathered& to) {
    const size_t before = to.cells;
    bool more = true;
    while (more) {
        const uint32_t cells = V::columns_within(a.columns + at.cell, at.end - at.cell, low, width);
        std::memcpy(to.values + to.cells * a.cell_rows, a.values + size_t{at.cell} * a.cell_rows, cells * a.cell_rows * sizeof(float));
        std::memcpy(to.columns + to.cells, a.columns + at.cell, cells * sizeof(uint16_t));
        to.cells += cells;
        at.cell += cells;
        if (at.cell < at.end) break;
        ++at.run;
        more = enter_run(a, band, at);
    }
    const auto count = static_cast<uint32_t>(to.cells - before);
    if (count > 0 || first) to.visits[to.count++] = {low, count, band, first, !more};
    return !more;
}

// The cells of bands [band_begin, band_end), block by block.
template <class V>
void gather_panel(const LinearArgs& a, uint32_t band_begin, uint32_t band_end, uint32_t width, Gathered& to) {
    constexpr uint32_t bands_ahead = 2;
    Cursor cursors[kGatheredBands];
    uint32_t unfinished = band_end - band_begin;
    for (uint32_t band = band_begin; band < band_end; ++band) {
        Cursor& at = cursors[band - band_begin] = {a.run_ptr[band], 0, 0};
        enter_run(a, band, at);
    }
    to.cells = to.count = 0;
    for (bool first = true; unfinished > 0;) {
        for (uint32_t low = 0; low < a.in_features; low += width, first = false) {
            for (uint32_t band = band_begin; band < band_end; ++band) {
                if (band + bands_ahead < band_end) {
                    const Cursor& later = cursors[band + bands_ahead - band_begin];
                    const char* const values = reinterpret_cast<const char*>(a.values + size_t{later.cell} * a.cell_rows);
                    const size_t bytes = size_t{later.end - later.cell} * a.cell_rows * sizeof(float);
                    for (size_t at = 0; at < bytes && at < kAheadBytes; at += 64) __builtin_prefetch(values + at);
                    __builtin_prefetch(a.columns + later.cell);
                    __builtin_prefetch(a.columns + later.cell + 32);
                }
                Cursor& at = cursors[band - band_begin];
                if (first || at.end > 0) unfinished -= gather_visit<V>(a, band, at, low, width, first, to);
            }
        }
    }
}

// What a visit reads and writes beside its cells, fetched while the one before it computes.
template <class V, int T>
inline void fetch_rows(const LinearArgs& a, const GatheredVisit& visit, size_t token) {
    for (uint32_t row = visit.band * a.cell_rows; row < (visit.band + 1) * a.cell_rows && row < a.out_features; ++row) {
        const size_t at = row * a.stride + token;
        __builtin_prefetch(a.y + at);
        __builtin_prefetch(a.y + at + T * V::width - 1);
        if (!visit.last || !a.residual) continue;
        __builtin_prefetch(a.residual + at);
        __builtin_prefetch(a.residual + at + T * V::width - 1);
    }
}

// x: room for the copy of a block.
template <class V, int R, int T>
__attribute__((noinline)) void visit_gathered(const LinearArgs& a, const Gathered& gathered, uint32_t width, float* x, size_t token) {
    const float* values = gathered.values;
    const uint16_t* columns = gathered.columns;
    const float* block = nullptr;
    for (size_t i = 0; i < gathered.count; ++i) {
        const GatheredVisit visit = gathered.visits[i];
        if (i == 0 || visit.low != gathered.visits[i - 1].low) {
            const uint32_t left = a.in_features - visit.low;
            block = copy_block<V, T>(a, visit.low, left < width ? left : width, token, x);
        }
        if (i + 1 < gathered.count) fetch_rows<V, T>(a, gathered.visits[i + 1], token);
        visit_rows<V, R, T>(a, visit, values, columns, block, token, {0, 0});
        values += size_t{visit.count} * a.cell_rows;
        columns += visit.count;
    }
}

template <class V, int R, int Most, class Tiles>
void gathered_bands(const LinearArgs& a, const Tiles& tiles) {
    alignas(64) float x[kBlockColumns * Most * V::width];
    Gathered gathered(a.scratch);
    const uint32_t width = block_columns(a.in_features);
    const size_t room = kGatheredFloats / a.cell_rows;
    for (uint32_t band = a.band_begin; band < a.band_end;) {
        uint32_t end = band;
        for (size_t cells = 0; end < a.band_end && end - band < kGatheredBands; ++end) {
            for (uint32_t r = a.run_ptr[end]; r < a.run_ptr[end + 1]; ++r) cells += a.runs[r].count;
            if (cells > room) break;
        }
        gather_panel<V>(a, band, end, width, gathered);
        tiles([&](auto t, size_t token) { visit_gathered<V, R, decltype(t)::value>(a, gathered, width, x, token); });
        band = end;
    }
}

}  // namespace
}  // namespace lavolta
