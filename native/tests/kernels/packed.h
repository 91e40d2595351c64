// Random packed linear layers of one level.
#pragma once

#include "check.h"

namespace lavolta {

struct Packed {
    std::vector<float> values;
    std::vector<uint16_t> columns;
    std::vector<Run> runs;
    std::vector<uint32_t> run_ptr;
    std::vector<float> bias;
};

// Band b keeps all columns, none, or a random share of them, in one run, in two, or in runs of one cell.
inline Packed pack(Numbers& numbers, uint32_t out_features, uint32_t in_features, uint32_t cell_rows) {
    Packed packed;
    packed.bias = numbers.numbers(out_features);
    packed.run_ptr.push_back(0);
    const uint32_t bands = (out_features + cell_rows - 1) / cell_rows;
    for (uint32_t band = 0; band < bands; ++band) {
        const uint32_t first = static_cast<uint32_t>(packed.columns.size());
        for (uint32_t column = 0; column < in_features; ++column) {
            if (band % 4 == 1 || (band % 4 > 1 && numbers.below(3))) continue;
            packed.columns.push_back(static_cast<uint16_t>(column));
            for (uint32_t row = 0; row < cell_rows; ++row) {
                packed.values.push_back(band * cell_rows + row < out_features ? numbers.number() : 0.0f);
            }
        }
        const uint32_t kept = static_cast<uint32_t>(packed.columns.size()) - first;
        if (band % 4 == 3) {
            for (uint32_t cell = 0; cell < kept; ++cell) packed.runs.push_back({first + cell, 1});
        } else if (band % 4 == 2 && kept > 1) {
            packed.runs.push_back({first, kept / 2});
            packed.runs.push_back({first + kept / 2, kept - kept / 2});
        } else if (kept) {
            packed.runs.push_back({first, kept});
        }
        packed.run_ptr.push_back(static_cast<uint32_t>(packed.runs.size()));
    }
    // Kernels may not read past the last cell: the vectors have exactly their length, which the address sanitizer watches.
    packed.values.shrink_to_fit();
    packed.columns.shrink_to_fit();
    return packed;
}

// What one token streams: three stretches of a layer. Their cells are those of no column in particular.
struct Stretched {
    std::vector<uint16_t> sizes;      // (3, bands)
    std::vector<Stretch> stretches;
    uint32_t units = 0;
};

// Of `most` units that a band can have, all, none, or random parts are in each stretch.
inline Stretched stretched(Numbers& numbers, uint32_t bands, uint32_t most) {
    constexpr uint32_t count = 3;
    Stretched made;
    made.sizes.resize(size_t{count} * bands);
    for (uint32_t band = 0; band < bands; ++band) {
        uint32_t left = band % 4 == 1 ? 0 : most;
        for (uint32_t s = 0; s < count; ++s) {
            const uint32_t size = band % 4 == 0 && s == band / 4 % count ? left : static_cast<uint32_t>(numbers.below(left + 1));
            made.sizes[size_t{s} * bands + band] = static_cast<uint16_t>(size);
            left -= size;
        }
    }
    for (uint32_t s = 0; s < count; ++s) {
        made.stretches.push_back({made.sizes.data() + size_t{s} * bands, made.units});
        for (uint32_t band = 0; band < bands; ++band) made.units += made.sizes[size_t{s} * bands + band];
    }
    return made;
}

}  // namespace lavolta
