// A packed linear layer, checked: a kernel follows its indices blindly.
#include <string>
#include <vector>

#include "bundle.h"
#include "error.h"

namespace lavolta {

void LevelRuns::read(const Linear& linear, uint32_t level) {
    const size_t bands = linear.bands;
    linear.find_stretches(level, stretches_);
    // One more: a run of no units is written, too, and overwritten by the next one.
    if (runs.size() <= stretches_.size() * bands) runs.resize(stretches_.size() * bands + 1);
    if (run_ptr.size() <= bands) run_ptr.resize(bands + 1);
    uint32_t count = 0;
    for (size_t band = 0; band < bands; ++band) {
        run_ptr[band] = count;
        for (Stretch& stretch : stretches_) {
            const uint32_t units = stretch.sizes[band];
            runs[count] = {stretch.first, units};
            stretch.first += units;
            count += units != 0;
        }
    }
    run_ptr[bands] = count;
}

void Linear::find_stretches(uint32_t level, std::vector<Stretch>& stretches) const {
    stretches.clear();
    for (size_t block = 0; block < blocks; ++block) {
        for (size_t group = 0; group < groups; ++group) {
            const size_t stretch = group * blocks + block;
            if (keeps(level, group)) stretches.push_back({sizes + stretch * bands, starts[stretch]});
        }
    }
}

uint64_t Linear::kept_units(uint32_t level) const {
    uint64_t kept = 0;
    for (size_t group = 0; group < groups; ++group) {
        if (keeps(level, group)) kept += starts[(group + 1) * blocks] - starts[group * blocks];
    }
    return kept;
}

uint64_t Linear::kept_cells(uint32_t level) const {
    if (precision == Precision::fp32) return kept_units(level);
    uint64_t kept = 0;
    for (size_t group = 0; group < groups; ++group) {
        if (!keeps(level, group)) continue;
        const uint64_t end = uint64_t{starts[(group + 1) * blocks]} * kQuad;
        for (uint64_t cell = uint64_t{starts[group * blocks]} * kQuad; cell < end; ++cell) kept += filler(cell) ? 0 : 1;
    }
    return kept;
}

namespace {

[[noreturn]] void broken_index(const Linear& linear, const std::string& what) {
    fail(LAVOLTA_INDEX_OUT_OF_RANGE, "linear '" + linear.name + "': " + what + ".");
}

}  // namespace

void Linear::check(uint32_t levels) {
    for (uint64_t cell = 0; cell < units * cells_per_unit(); ++cell) {
        if (columns[cell] >= in_features) broken_index(*this, "a column is " + std::to_string(columns[cell]));
    }
    for (uint32_t group = 0; group < groups; ++group) {
        if (kept_by[group] >> (levels - 1) > 1) {
            broken_index(*this, "group " + std::to_string(group) + " is kept by a level that is not there");
        }
    }
    find_starts();
    check_columns();
    if (precision == Precision::int8) check_values();
}

// The stretches follow one another through all units, which are counted in 32 bits.
void Linear::find_starts() {
    const size_t stretches = size_t{groups} * blocks;
    starts.assign(1, 0);
    starts.reserve(stretches + 1);
    uint64_t end = 0;
    for (size_t stretch = 0; stretch < stretches; ++stretch) {
        for (size_t band = 0; band < bands; ++band) end += sizes[stretch * bands + band];
        starts.push_back(static_cast<uint32_t>(end));
    }
    if (end != units || end > UINT32_MAX) {
        broken_index(*this, "its groups have " + std::to_string(end) + " cells or quads, there are " + std::to_string(units));
    }
}

// No column comes twice in a band, which also bounds the work of a level.
void Linear::check_columns() const {
    std::vector<uint32_t> next(starts);          // the next unit of every stretch
    std::vector<uint32_t> seen(in_features, 0);  // one more than the last band that had the column
    const uint64_t width = cells_per_unit();
    for (uint32_t band = 0; band < bands; ++band) {
        for (size_t stretch = 0; stretch + 1 < starts.size(); ++stretch) {
            const uint64_t first = next[stretch], end = first + sizes[stretch * bands + band];
            next[stretch] = static_cast<uint32_t>(end);
            for (uint64_t cell = first * width; cell < end * width; ++cell) {
                if (filler(cell)) continue;
                if (seen[columns[cell]] > band) broken_index(*this, "a band has a column twice");
                seen[columns[cell]] = band + 1;
            }
        }
    }
}

// The range of int8 values, the zeros of fillers, and scales.
void Linear::check_values() const {
    const auto broken = [&](const std::string& what) {
        fail(LAVOLTA_VALUE_OUT_OF_RANGE, "linear '" + name + "': " + what + ".");
    };
    for (uint32_t row = 0; row < out_features; ++row) {
        if (scale[row] < 0.0f) broken("a scale is below 0");
    }
    for (uint64_t quad = 0; quad < units; ++quad) {
        const int8_t* values = values_int8 + quad * cell_rows * kQuad;
        for (uint64_t i = 0; i < cell_rows * kQuad; ++i) {
            if (values[i] == -128) broken("a value is -128, below -127");
            if (values[i] != 0 && filler(quad * kQuad + i % kQuad)) broken("a cell that only fills up a quad is not zero");
        }
    }
}

}  // namespace lavolta
