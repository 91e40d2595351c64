// A packed linear layer, checked: a kernel follows its indices blindly.
#include <string>
#include <vector>

#include "bundle.h"
#include "error.h"

namespace lavolta {

void LevelRuns::read(const Linear& linear, uint32_t level) {
    const size_t bands = linear.bands, blocks = linear.blocks, segments = linear.segments();
    if (!linear.cuts) {
        runs = linear.runs;
        run_ptr = linear.run_ptr + level * (bands + 1);
        return;
    }
    if (own_runs_.size() < segments) own_runs_.resize(segments);
    if (own_ptr_.size() <= bands) own_ptr_.resize(bands + 1);
    const uint16_t* const cuts = linear.cuts + level * segments;
    Run* const to = own_runs_.data();
    uint32_t* const ptr = own_ptr_.data();
    uint32_t count = 0;
    if (blocks == 1) {
        // Without a branch: a band that keeps nothing is overwritten by the next one.
        for (size_t band = 0; band < bands; ++band) {
            ptr[band] = count;
            to[count] = {linear.starts[band], cuts[band]};
            count += cuts[band] != 0;
        }
    } else {
        for (size_t band = 0, segment = 0; band < bands; ++band) {
            const uint32_t first = ptr[band] = count;
            for (size_t block = 0; block < blocks; ++block, ++segment) {
                const uint32_t start = linear.starts[segment], kept = cuts[segment];
                if (count > first && to[count - 1].first + to[count - 1].count == start) {
                    to[count - 1].count += kept;
                } else if (kept) {
                    to[count++] = {start, kept};
                }
            }
        }
    }
    ptr[bands] = count;
    runs = to;
    run_ptr = ptr;
}

uint64_t Linear::kept_units(uint32_t level) const {
    LevelRuns table;
    table.read(*this, level);
    uint64_t kept = 0;
    for (uint32_t r = table.run_ptr[0]; r < table.run_ptr[bands]; ++r) kept += table.runs[r].count;
    return kept;
}

uint64_t Linear::kept_cells(uint32_t level) const {
    if (precision == Precision::fp32) return kept_units(level);
    LevelRuns table;
    table.read(*this, level);
    uint64_t kept = 0;
    for (uint32_t r = table.run_ptr[0]; r < table.run_ptr[bands]; ++r) {
        const Run& run = table.runs[r];
        for (uint64_t cell = uint64_t{run.first} * kQuad; cell < (uint64_t{run.first} + run.count) * kQuad; ++cell) {
            kept += filler(cell) ? 0 : 1;
        }
    }
    return kept;
}

namespace {

[[noreturn]] void broken_index(const Linear& linear, const std::string& what) {
    fail(LAVOLTA_INDEX_OUT_OF_RANGE, "linear '" + linear.name + "': " + what + ".");
}

}  // namespace

void Linear::check(uint64_t run_count, uint32_t levels) const {
    for (uint64_t cell = 0; cell < units * cells_per_unit(); ++cell) {
        if (columns[cell] >= in_features) broken_index(*this, "a column is " + std::to_string(columns[cell]));
    }
    if (cuts) {
        check_cuts(levels);
    } else {
        check_runs(run_count, levels);
    }
    if (precision == Precision::int8) check_values();
}

namespace {

// Finds a column that comes twice in a band, which also bounds the work of a run.
class SeenColumns {
   public:
    explicit SeenColumns(const Linear& linear) : linear_(linear), seen_(linear.in_features, 0) {}

    void begin_band() { ++stamp_; }

    void add(uint64_t first_unit, uint64_t count) {
        const uint64_t width = linear_.cells_per_unit();
        for (uint64_t cell = first_unit * width; cell < (first_unit + count) * width; ++cell) {
            if (linear_.filler(cell)) continue;
            if (seen_[linear_.columns[cell]] == stamp_) broken_index(linear_, "a band has a column twice");
            seen_[linear_.columns[cell]] = stamp_;
        }
    }

   private:
    const Linear& linear_;
    std::vector<uint64_t> seen_;
    uint64_t stamp_ = 0;
};

}  // namespace

// Every level and band: its runs are inside the cells and no column comes twice.
void Linear::check_runs(uint64_t run_count, uint32_t levels) const {
    SeenColumns seen(*this);
    for (uint32_t level = 0; level < levels; ++level) {
        const uint32_t* row = run_ptr + size_t{level} * (size_t{bands} + 1);
        for (uint32_t band = 0; band < bands; ++band) {
            seen.begin_band();
            if (row[band] > row[band + 1] || row[band + 1] > run_count) broken_index(*this, "run_ptr is not rising or leaves the runs");
            for (uint32_t r = row[band]; r < row[band + 1]; ++r) {
                const Run& run = runs[r];
                // Kernels go on to the next run when one is used up: an empty one never is.
                if (run.count == 0) broken_index(*this, "a run has no cells");
                if (run.count > units || run.first > units - run.count) broken_index(*this, "a run leaves the cells");
                seen.add(run.first, run.count);
            }
        }
    }
}

// Blocks follow one another through all cells, and no level keeps more of one than the level before: what holds for the densest
// level holds for all.
void Linear::check_cuts(uint32_t levels) const {
    const size_t count = segments();
    if (starts[0] != 0 || starts[count] != units) broken_index(*this, "the blocks do not begin at the first cell or end at the last");
    for (size_t segment = 0; segment < count; ++segment) {
        if (starts[segment] > starts[segment + 1]) broken_index(*this, "the starts of the blocks do not rise");
        if (cuts[segment] > starts[segment + 1] - starts[segment]) broken_index(*this, "a cut of level 0 leaves its block");
    }
    for (uint32_t level = 1; level < levels; ++level) {
        const uint16_t* row = cuts + level * count;
        for (size_t segment = 0; segment < count; ++segment) {
            if (row[segment] > row[segment - count]) {
                broken_index(*this, "level " + std::to_string(level) + " keeps more of a block than the level before");
            }
        }
    }
    SeenColumns seen(*this);
    for (size_t segment = 0; segment < count; ++segment) {
        if (segment % blocks == 0) seen.begin_band();
        seen.add(starts[segment], cuts[segment]);
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
