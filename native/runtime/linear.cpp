// A packed linear layer, checked: a kernel follows its indices blindly.
#include <string>
#include <vector>

#include "bundle.h"
#include "error.h"

namespace lavolta {

uint64_t Linear::kept_cells(uint32_t index) const {
    const uint32_t* row = level(index);
    uint64_t kept = 0;
    for (uint32_t r = row[0]; r < row[bands]; ++r) {
        kept += uint64_t{runs[r].count} * cells_per_unit();
        if (precision == Precision::fp32) continue;
        for (uint64_t cell = uint64_t{runs[r].first} * kQuad; cell < (uint64_t{runs[r].first} + runs[r].count) * kQuad; ++cell) {
            kept -= filler(cell) ? 1 : 0;
        }
    }
    return kept;
}

void Linear::check(uint64_t run_count, uint32_t levels) const {
    check_indices(run_count, levels);
    if (precision == Precision::int8) check_values(levels);
}

// Every level and band: its runs are inside the cells and no column comes twice, which also bounds the work of a run.
void Linear::check_indices(uint64_t run_count, uint32_t levels) const {
    const auto broken = [&](const std::string& what) {
        fail(LAVOLTA_INDEX_OUT_OF_RANGE, "linear '" + name + "': " + what + ".");
    };
    const uint64_t width = cells_per_unit();
    for (uint64_t cell = 0; cell < units * width; ++cell) {
        if (columns[cell] >= in_features) broken("a column is " + std::to_string(columns[cell]));
    }
    std::vector<uint64_t> seen(in_features, 0);
    uint64_t stamp = 0;
    for (uint32_t index = 0; index < levels; ++index) {
        const uint32_t* row = level(index);
        for (uint32_t band = 0; band < bands; ++band) {
            ++stamp;
            if (row[band] > row[band + 1] || row[band + 1] > run_count) broken("run_ptr is not rising or leaves the runs");
            for (uint32_t r = row[band]; r < row[band + 1]; ++r) {
                const Run& run = runs[r];
                // Kernels go on to the next run when one is used up: an empty one never is.
                if (run.count == 0) broken("a run has no cells");
                if (run.count > units || run.first > units - run.count) broken("a run leaves the cells");
                for (uint64_t cell = run.first * width; cell < (uint64_t{run.first} + run.count) * width; ++cell) {
                    if (filler(cell)) continue;
                    if (seen[columns[cell]] == stamp) broken("a band has a column twice");
                    seen[columns[cell]] = stamp;
                }
            }
        }
    }
}

// The range of int8 values, the zeros of fillers, scales, and the sums that correct for unsigned inputs.
void Linear::check_values(uint32_t levels) const {
    const auto broken = [&](const std::string& what) {
        fail(LAVOLTA_VALUE_OUT_OF_RANGE, "linear '" + name + "': " + what + ".");
    };
    for (uint32_t row = 0; row < out_features; ++row) {
        if (scale[row] < 0.0f) broken("a scale is below 0");
    }
    // sums[quad][row]: of the values before the quad. Modulo 2^32, in which every difference that counts is exact.
    std::vector<uint32_t> sums((units + 1) * cell_rows, 0);
    for (uint64_t quad = 0; quad < units; ++quad) {
        for (uint64_t row = 0; row < cell_rows; ++row) {
            const int8_t* values = values_int8 + (quad * cell_rows + row) * kQuad;
            int32_t sum = 0;
            for (uint64_t i = 0; i < kQuad; ++i) {
                if (values[i] == -128) broken("a value is -128, below -127");
                if (values[i] != 0 && filler(quad * kQuad + i)) broken("a cell that only fills up a quad is not zero");
                sum += values[i];
            }
            sums[(quad + 1) * cell_rows + row] = sums[quad * cell_rows + row] + static_cast<uint32_t>(sum);
        }
    }
    for (uint32_t index = 0; index < levels; ++index) {
        const uint32_t* pointers = level(index);
        for (uint32_t out = 0; out < out_features; ++out) {
            const uint32_t band = out / cell_rows, row = out % cell_rows;
            uint32_t sum = 0;
            for (uint32_t r = pointers[band]; r < pointers[band + 1]; ++r) {
                const uint64_t first = runs[r].first, last = first + runs[r].count;
                sum += sums[last * cell_rows + row] - sums[first * cell_rows + row];
            }
            if (sum != static_cast<uint32_t>(row_sums[size_t{index} * out_features + out])) {
                broken("'row_sums' of level " + std::to_string(index) + " are not the sums of its values");
            }
        }
    }
}

}  // namespace lavolta
