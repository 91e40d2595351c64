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

// One linear layer with all its levels.
struct Linear {
    std::string name;
    uint32_t out_features, in_features, bands;
    uint64_t cells;           // stored
    const float* values;      // (cells, cell_rows)
    const uint16_t* columns;  // (cells,)
    const Run* runs;          // (n,)
    const uint32_t* run_ptr;  // (levels, bands + 1)
    const float* bias;        // (out_features,)

    const uint32_t* level(uint32_t index) const { return run_ptr + size_t{index} * (bands + 1); }
    uint64_t kept_cells(uint32_t level) const;
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
