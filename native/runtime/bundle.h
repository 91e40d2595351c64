// A bundle, read and checked: after this, every index that a kernel follows is known to be in range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels.h"

namespace lavolta {

enum class Pooling : uint8_t { mean, cls, none };
enum class NormKind : uint8_t { layer, rms };
enum class Position : uint8_t { learned, rope };

// What the engine needs of the manifest's "model"; docs/design/architecture.md states what it computes.
struct Spec {
    uint32_t layers, hidden, heads, kv_heads, ffn, vocab, max_tokens, types, outputs;
    NormKind norm;
    bool norm_first;
    Position position;
    bool ffn_gate;
    Activation activation;
    float norm_eps;
    bool causal, embedding_norm, normalize;
    Pooling pooling;
    bool has_head_dense;
    Activation head_dense;

    uint32_t head_size() const { return hidden / heads; }
    uint32_t key_features() const { return kv_heads * head_size(); }
};

struct Norm {
    const float* weight = nullptr;  // (hidden,)
    const float* bias = nullptr;    // (hidden,), null for RMS norms
};

enum class Precision : uint8_t { fp32, int8 };

// Groups of a linear, and blocks of columns of a group, at most.
constexpr uint32_t kMostGroups = 1024;
constexpr uint32_t kMostBlocks = 256;

// One linear layer with all its levels. Tables count units: cells, or quads of four cells where the precision is int8. Units lie
// group by group: a group is what the same levels keep, in stretches of one block of columns, band after band. A level streams
// some groups whole, where levels are nested the first ones.
struct Linear {
    std::string name;
    Precision precision;
    uint32_t out_features, in_features, bands, cell_rows;
    uint64_t units;               // stored
    const float* values;          // (cells, cell_rows), fp32 only
    const int8_t* values_int8;    // (quads, cell_rows, 4), int8 only
    const float* scale;           // (out_features,), int8 only
    const uint16_t* columns;      // (units, cells_per_unit())
    const uint64_t* kept_by;      // (groups,), bit l is set where level l streams the group
    const uint16_t* sizes;        // (groups, blocks, bands), units
    uint32_t groups, blocks;      // up to kMostGroups; 1 to kMostBlocks
    std::vector<uint32_t> starts; // (groups * blocks + 1,), the first unit of every stretch; `check` makes them
    const float* bias;            // (out_features,)

    uint32_t cells_per_unit() const { return precision == Precision::int8 ? kQuad : 1; }
    // Whether a cell only fills up its quad: it repeats the quad's first column.
    bool filler(uint64_t cell) const {
        return precision == Precision::int8 && cell % kQuad != 0 && columns[cell] == columns[cell / kQuad * kQuad];
    }
    // Whether a level streams a group.
    bool keeps(uint32_t level, size_t group) const { return kept_by[group] >> level & 1; }
    // Cells that a level streams, fillers not counted.
    uint64_t kept_cells(uint32_t level) const;
    // Units that a level streams, fillers among them.
    uint64_t kept_units(uint32_t level) const;
    // What a level streams, block by block, in a block group by group.
    void find_stretches(uint32_t level, std::vector<Stretch>& stretches) const;
    // Throws Error where an index or an int8 value breaks a rule of docs/reference/bundle.md.
    void check(uint32_t levels);

   private:
    void find_starts();
    void check_columns() const;
    void check_values() const;
};

// What a level streams of each band of a linear, as kernels take it: block by block, in a block group by group.
class LevelRuns {
   public:
    void read(const Linear& linear, uint32_t level);

    std::vector<Run> runs;
    std::vector<uint32_t> run_ptr;  // (bands + 1,)

   private:
    std::vector<Stretch> stretches_;
};

struct Layer {
    Linear query, key, value, output, up, down;
    std::optional<Linear> gate;
    Norm attention_norm, ffn_norm;
};

struct Blob {
    const uint8_t* data = nullptr;
    size_t bytes = 0;
};

class Bundle {
   public:
    // Throws Error with the kind of the defect. `data` must outlive the bundle.
    Bundle(const uint8_t* data, size_t bytes);

    std::string manifest;
    std::vector<std::string> levels;
    Spec spec{};
    uint32_t cell_rows = 0;
    const float* word = nullptr;      // (vocab, hidden)
    const float* position = nullptr;  // (max_tokens, hidden) or null
    const float* inv_freq = nullptr;  // (head_size / 2,) or null: radians per position
    const float* type = nullptr;      // (types, hidden) or null
    Norm embedding_norm;
    std::vector<Layer> layers;
    Norm final_norm;  // of norm_first models
    const float *head_dense_weight = nullptr, *head_dense_bias = nullptr;  // (hidden, hidden), (hidden,) or null
    const float *head_out_weight = nullptr, *head_out_bias = nullptr;      // (outputs, hidden), (outputs,) or null
    std::optional<Linear> head_out;  // the output layer where it is packed
    Blob tokenizer, vocab;

   private:
    friend class BundleReader;
    // Copies of tensors that the file does not align.
    std::vector<std::unique_ptr<uint8_t[]>> copies_;
};

// A file, mapped for reading.
class MappedFile {
   public:
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }

   private:
    const uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace lavolta
