// Low cells: a walk that reads activations from the first-level cache.
//
// R rows use an activation R times, so for low cells loading it is the work. A panel of bands therefore passes over blocks of
// columns whose activations fit the first-level cache, and the sums wait in y between two blocks. A band goes on while its next
// cell is in the block, so it adds its products in stored order: the bits are those of the straight walk.
#pragma once

#include "../cpu.h"
#include "epilogue.h"

namespace lavolta {
namespace {

constexpr uint32_t kPanelBands = 256;

// Columns of x, T registers of tokens each, that fit the first-level cache beside the sums and weights that stream through it.
template <class V, int T>
uint32_t resident_columns() {
    static const size_t bytes = first_level_cache_bytes() * 4 / 5;
    return static_cast<uint32_t>(bytes / (T * V::width * sizeof(float)));
}

// Whether the walk below is the faster one: what it saves for every cell is more than what the sums cost that it writes and
// reads back for every visit of a band. Measured with benchmarks/cells.py. T: registers of tokens in the widest tile; narrower
// ones have too few sums for low cells in either walk.
template <class V, int R, int T>
bool visits_pay(const LinearArgs& a) {
    if (a.band_begin == a.band_end || a.token_end - a.token_begin < T * V::width / 2) return false;
    constexpr uint32_t least = R == 1 ? 10 : 16;  // cells of a visit
    const uint32_t bands = a.band_end - a.band_begin;
    uint64_t cells = 0;
    for (uint32_t r = a.run_ptr[a.band_begin]; r < a.run_ptr[a.band_end]; ++r) cells += a.runs[r].count;
    // Columns rise in a group of cells that the same levels keep; the first band tells how many groups there are.
    uint32_t groups = 1;
    uint16_t column = 0;
    for (uint32_t r = a.run_ptr[a.band_begin]; r < a.run_ptr[a.band_begin + 1]; ++r) {
        for (uint32_t cell = a.runs[r].first; cell < a.runs[r].first + a.runs[r].count; ++cell) {
            groups += a.columns[cell] < column;
            column = a.columns[cell];
        }
    }
    const uint32_t blocks = (a.in_features + resident_columns<V, T>() - 1) / resident_columns<V, T>();
    return blocks > 1 && cells >= uint64_t{least} * bands * blocks * groups;
}

struct Cursor {
    uint32_t run, cell, end;  // present run, next cell, end of the run
};

// Bands [band_begin, band_end), at most kPanelBands.
template <class V, int R, int T>
__attribute__((noinline)) void sparse_panel(const LinearArgs& a, uint32_t band_begin, uint32_t band_end, size_t token) {
    const uint32_t width = resident_columns<V, T>();
    Cursor cursors[kPanelBands];
    uint32_t unfinished = band_end - band_begin;
    for (uint32_t band = band_begin; band < band_end; ++band) {
        const uint32_t run = a.run_ptr[band];
        const bool any = run < a.run_ptr[band + 1];
        cursors[band - band_begin] = {run, any ? a.runs[run].first : 0, any ? a.runs[run].first + a.runs[run].count : 0};
    }
    for (bool first = true; unfinished > 0;) {
        for (uint32_t low = 0; low < a.in_features; low += width, first = false) {
            for (uint32_t band = band_begin; band < band_end; ++band) {
                Cursor& at = cursors[band - band_begin];
                uint32_t cells = V::columns_within(a.columns + at.cell, at.end - at.cell, low, width);
                if (cells == 0 && !first) continue;
                const size_t row = size_t{band} * R;
                const int rows = a.out_features - row < size_t{R} ? static_cast<int>(a.out_features - row) : R;
                float* y = a.y + row * a.stride + token;
                typename V::Reg acc[R][T];
                if (first) {
                    start<V>(acc, a.bias + row, rows);
                } else {
                    resume<V>(acc, y, a.stride, rows);
                }
                if (band + 1 < band_end) {
                    const size_t next = cursors[band + 1 - band_begin].cell;
                    __builtin_prefetch(a.values + next * R);
                    __builtin_prefetch(a.values + next * R + 16);
                    __builtin_prefetch(a.columns + next);
                }
                const uint32_t last_run = a.run_ptr[band + 1];
                bool finished = at.run >= last_run;
                while (!finished) {
                    accumulate<V, R, T, true>(acc, a.values + size_t{at.cell} * R, 1, R, a.columns + at.cell, cells, a.x + token,
                                              a.x_stride);
                    at.cell += cells;
                    if (at.cell < at.end) break;
                    finished = ++at.run == last_run;
                    if (finished) break;
                    at.cell = a.runs[at.run].first;
                    at.end = at.cell + a.runs[at.run].count;
                    cells = V::columns_within(a.columns + at.cell, at.end - at.cell, low, width);
                    if (cells == 0) break;
                }
                if (!finished) {
                    pause<V>(acc, y, a.stride, rows);
                    continue;
                }
                at.end = at.cell = 0;
                --unfinished;
                finish<V>(acc, y, a.residual ? a.residual + row * a.stride + token : nullptr, a.stride, rows, a.activation);
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
