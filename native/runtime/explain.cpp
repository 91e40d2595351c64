// What runs at every level, as JSON: kernel, cells, work, and measured time where a profiled run was made.
#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "json.h"
#include "model.h"
#include "peak.h"
#include "reason.h"

namespace lavolta {
namespace {

struct LinearStep {
    const char* name;
    Step step;
    const Linear* linear;
};

std::vector<LinearStep> linear_steps(const Layer& layer) {
    std::vector<LinearStep> steps = {
        {"attention.query", Step::query, &layer.query}, {"attention.key", Step::key, &layer.key},
        {"attention.value", Step::value, &layer.value}, {"attention.output", Step::output, &layer.output},
        {"ffn.up", Step::up, &layer.up},
    };
    if (layer.gate) steps.push_back({"ffn.gate", Step::gate, &*layer.gate});
    steps.push_back({"ffn.down", Step::down, &layer.down});
    return steps;
}

// Weights and columns of a cell, or of a quad.
uint64_t unit_bytes(const Linear& linear) {
    const uint64_t value = linear.precision == Precision::int8 ? sizeof(int8_t) : sizeof(float);
    return linear.cells_per_unit() * (linear.cell_rows * value + sizeof(uint16_t));
}

// The fields of a linear layer at a level.
std::string work_of(const Linear& linear, uint32_t level) {
    const uint64_t kept = linear.kept_cells(level);
    const uint64_t cells = uint64_t{linear.bands} * linear.in_features;
    LevelRuns table;
    table.read(linear, level);
    // The last band may have fewer rows than its cells hold; the kernel computes the missing ones for nothing.
    const uint64_t macs = kept * linear.cell_rows;
    return std::string(", \"precision\": \"") + (linear.precision == Precision::int8 ? "int8" : "fp32") +
           "\", \"cell_rows\": " + std::to_string(linear.cell_rows) + ", \"cells\": " + std::to_string(cells) +
           ", \"cells_kept\": " + std::to_string(kept) + ", \"sparsity\": " +
           json_number(1.0 - static_cast<double>(kept) / static_cast<double>(cells), "%.6f") +
           ", \"runs\": " + std::to_string(table.run_ptr[linear.bands]) + ", \"macs_per_token\": " + std::to_string(macs);
}

// What a linear layer should take and how much of the machine it uses: at the peak of the kernel's own instructions, for the
// work that is kept. Nothing is known before a run was measured, or where the build cannot measure that peak.
std::string peak_fields(const Linear& linear, uint32_t level, Isa isa, uint64_t tokens, double total_ms, uint64_t runs,
                        uint32_t threads) {
    const double peak = runs ? known_peak(linear.precision == Precision::int8, isa) * threads : 0.0;
    if (peak == 0.0) return ", \"expected_ms\": null, \"share_of_peak\": null";
    const double operations = 2.0 * static_cast<double>(linear.kept_cells(level) * linear.cell_rows) * static_cast<double>(tokens);
    const double expected_ms = operations / peak / 1e6;
    return ", \"expected_ms\": " + json_number(expected_ms / static_cast<double>(runs), "%.6f") +
           ", \"share_of_peak\": " + (total_ms > 0.0 ? json_number(expected_ms / total_ms, "%.6f") : "null");
}

// What the weights and columns of a level are in bytes: a token of a session reads them all, and that is what it waits for.
uint64_t streamed_bytes(const Linear& linear, uint32_t level) {
    return linear.kept_units(level) * unit_bytes(linear);
}

// What one token should take: as long as its weights take to be read. Nothing is known before a token was measured.
std::string bandwidth_fields(uint64_t bytes, double bytes_per_ns, double total_ms, uint64_t runs) {
    const std::string read = ", \"bytes_per_token\": " + std::to_string(bytes);
    if (!runs) return read + ", \"expected_ms\": null, \"share_of_bandwidth\": null";
    const double expected_ms = static_cast<double>(bytes) / bytes_per_ns / 1e6, measured_ms = total_ms / static_cast<double>(runs);
    return read + ", \"expected_ms\": " + json_number(expected_ms, "%.6f") + ", \"share_of_bandwidth\": " +
           (measured_ms > 0.0 ? json_number(expected_ms / measured_ms, "%.6f") : "null");
}

}  // namespace

class Model::Rows {
   public:
    explicit Rows(Isa limit) : limit_(limit) {}

    void add(const std::string& level, const std::string& layer, const char* op, const char* kernel, Isa isa,
             double total_ms, uint64_t runs, const std::string& more) {
        text_ += text_.size() > 1 ? ", {" : "{";
        text_ += "\"level\": " + json_quote(level) + ", \"layer\": " + json_quote(layer) + ", \"op\": \"" + op +
                 "\", \"kernel\": \"" + kernel + "_" + isa_name(isa) + "\", \"isa\": \"" + isa_name(isa) +
                 "\", \"reason\": " + json_quote(kernel_reason(kernel, isa, limit_)) + more +
                 ", \"measured_ms\": " + (runs ? json_number(total_ms / static_cast<double>(runs), "%.6f") : "null") + "}";
    }

    std::string finish() const { return text_ + "]"; }

   private:
    Isa limit_;
    std::string text_ = "[";
};

// The weights themselves are read, by as many threads as run the model: whatever cache they fit is the one that counts.
double Model::weights_bytes_per_ns() {
    if (weights_bytes_per_ns_ > 0.0) return weights_bytes_per_ns_;
    struct Part {
        const char* begin;
        size_t bytes;
    };
    constexpr size_t line = 64, chunk = size_t{64} << 10;
    std::vector<Part> parts;
    size_t all = 0;
    const auto add = [&](const Linear& linear) {
        const auto* values = linear.precision == Precision::int8 ? reinterpret_cast<const char*>(linear.values_int8)
                                                                 : reinterpret_cast<const char*>(linear.values);
        const size_t bytes = linear.units * (unit_bytes(linear) - linear.cells_per_unit() * sizeof(uint16_t));
        for (size_t at = 0; at < bytes; at += chunk) parts.push_back({values + at, std::min(chunk, bytes - at)});
        all += bytes;
    };
    for (const Layer& layer : bundle_.layers) {
        for (const LinearStep& entry : linear_steps(layer)) add(*entry.linear);
    }
    std::atomic<uint64_t> sink{0};
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(30);
    do {
        double ms = 0.0;
        timed(&ms, [&] {
            pool_.run(parts.size(), [&](size_t item, uint32_t) {
                uint64_t sum = 0;
                for (size_t at = 0; at < parts[item].bytes; at += line) sum += static_cast<unsigned char>(parts[item].begin[at]);
                sink.fetch_add(sum, std::memory_order_relaxed);
            });
        });
        if (ms > 0.0) weights_bytes_per_ns_ = std::max(weights_bytes_per_ns_, static_cast<double>(all) / (ms * 1e6));
    } while (std::chrono::steady_clock::now() < end);
    // Where there is nothing to read, any rate will do.
    if (weights_bytes_per_ns_ == 0.0) weights_bytes_per_ns_ = 1.0;
    return weights_bytes_per_ns_;
}

std::string Model::explain() {
    std::lock_guard<std::mutex> lock(run_mutex_);
    Rows rows(kernels_.limit);
    for (uint32_t level = 0; level < bundle_.levels.size(); ++level) {
        const Profile& profile = profiles_[level];
        const std::string& name = bundle_.levels[level];
        const auto edge = [&](const char* layer, const char* op, Isa isa, Edge e) {
            rows.add(name, layer, op, op, isa, profile.edge_ms[static_cast<size_t>(e)], profile.runs, "");
        };
        const auto linear = [&](const std::string& layer, const Linear& of, double total_ms, uint64_t tokens) {
            const bool int8 = of.precision == Precision::int8;
            const Isa isa = int8 ? kernels_.linear_int8_isa : kernels_.linear_isa;
            rows.add(name, layer, "linear", int8 ? "linear_int8" : "linear", isa, total_ms, profile.runs,
                     work_of(of, level) + peak_fields(of, level, isa, tokens, total_ms, profile.runs, pool_.threads()));
        };
        edge("embeddings", "norm", kernels_.norm_isa, Edge::embeddings);
        for (size_t i = 0; i < bundle_.layers.size(); ++i) {
            const Layer& layer = bundle_.layers[i];
            const std::string prefix = "layers." + std::to_string(i) + ".";
            const auto ms = [&](Step step) { return profile.runs ? profile.layer_ms[i][static_cast<size_t>(step)] : 0.0; };
            bool any_int8 = false;
            for (const LinearStep& entry : linear_steps(layer)) {
                linear(prefix + entry.name, *entry.linear, ms(entry.step), profile.tokens);
                any_int8 = any_int8 || entry.linear->precision == Precision::int8;
            }
            const auto plain = [&](const char* part, const char* op, Isa isa, Step step) {
                rows.add(name, prefix + part, op, op, isa, ms(step), profile.runs, "");
            };
            if (any_int8) plain("quantize", "quantize", kernels_.quantize_isa, Step::quantize);
            plain("attention", "attention", kernels_.attention_isa, Step::attention);
            plain("attention_norm", "norm", kernels_.norm_isa, Step::attention_norm);
            plain("ffn_norm", "norm", kernels_.norm_isa, Step::ffn_norm);
        }
        if (bundle_.spec.norm_first) edge("final_norm", "norm", kernels_.norm_isa, Edge::final_norm);
        if (bundle_.head_out) {
            linear("head.out", *bundle_.head_out, profile.edge_ms[static_cast<size_t>(Edge::head)], profile.head_tokens);
        } else {
            edge("head", "dense", kernels_.dense_isa, Edge::head);
        }
        if (bundle_.spec.causal && bundle_.spec.pooling == Pooling::none) explain_token(rows, level);
    }
    return rows.finish();
}

// The steps of one token of a session.
void Model::explain_token(Rows& rows, uint32_t level) {
    const Profile& profile = token_profiles_[level];
    const std::string& name = bundle_.levels[level];
    const double bytes_per_ns = profile.runs ? weights_bytes_per_ns() : 0.0;
    const auto plain = [&](const std::string& layer, const char* kernel, Isa isa, double total_ms) {
        rows.add(name, layer, kernel, kernel, isa, total_ms, profile.runs, "");
    };
    const auto edge_ms = [&](Edge edge) { return profile.edge_ms[static_cast<size_t>(edge)]; };
    const auto linear = [&](const std::string& layer, const Linear& of, double total_ms) {
        const bool int8 = of.precision == Precision::int8;
        rows.add(name, layer, "token_linear", int8 ? "token_linear_int8" : "token_linear",
                 int8 ? kernels_.token_linear_int8_isa : kernels_.token_linear_isa, total_ms, profile.runs,
                 work_of(of, level) + bandwidth_fields(streamed_bytes(of, level), bytes_per_ns, total_ms, profile.runs));
    };
    plain("embeddings", "token_norm", kernels_.token_norm_isa, edge_ms(Edge::embeddings));
    for (size_t i = 0; i < bundle_.layers.size(); ++i) {
        const Layer& layer = bundle_.layers[i];
        const std::string prefix = "layers." + std::to_string(i) + ".";
        const auto ms = [&](Step step) { return profile.runs ? profile.layer_ms[i][static_cast<size_t>(step)] : 0.0; };
        bool any_int8 = false;
        for (const LinearStep& entry : linear_steps(layer)) {
            linear(prefix + entry.name, *entry.linear, ms(entry.step));
            any_int8 = any_int8 || entry.linear->precision == Precision::int8;
        }
        if (any_int8) plain(prefix + "quantize", "token_quantize", kernels_.token_quantize_isa, ms(Step::quantize));
        plain(prefix + "attention", "cached_attention", kernels_.cached_attention_isa, ms(Step::attention));
        plain(prefix + "attention_norm", "token_norm", kernels_.token_norm_isa, ms(Step::attention_norm));
        plain(prefix + "ffn_norm", "token_norm", kernels_.token_norm_isa, ms(Step::ffn_norm));
    }
    if (bundle_.spec.norm_first) plain("final_norm", "token_norm", kernels_.token_norm_isa, edge_ms(Edge::final_norm));
    if (bundle_.head_out) return linear("head.out", *bundle_.head_out, edge_ms(Edge::head));
    const uint64_t bytes = uint64_t{bundle_.spec.outputs} * bundle_.spec.hidden * sizeof(float);
    rows.add(name, "head", "token_dense", "token_dense", kernels_.token_dense_isa, edge_ms(Edge::head), profile.runs,
             bandwidth_fields(bytes, bytes_per_ns, edge_ms(Edge::head), profile.runs));
}

}  // namespace lavolta
