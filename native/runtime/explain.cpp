// What runs at every level, as JSON: kernel, cells, work, and measured time where a profiled run was made.
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

// The fields of a linear layer at a level.
std::string work_of(const Linear& linear, uint32_t level) {
    const uint64_t kept = linear.kept_cells(level);
    const uint64_t cells = uint64_t{linear.bands} * linear.in_features;
    const uint32_t* row = linear.level(level);
    // The last band may have fewer rows than its cells hold; the kernel computes the missing ones for nothing.
    const uint64_t macs = kept * linear.cell_rows;
    return std::string(", \"precision\": \"") + (linear.precision == Precision::int8 ? "int8" : "fp32") +
           "\", \"cell_rows\": " + std::to_string(linear.cell_rows) + ", \"cells\": " + std::to_string(cells) +
           ", \"cells_kept\": " + std::to_string(kept) + ", \"sparsity\": " +
           json_number(1.0 - static_cast<double>(kept) / static_cast<double>(cells), "%.6f") +
           ", \"runs\": " + std::to_string(row[linear.bands] - row[0]) + ", \"macs_per_token\": " + std::to_string(macs);
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

class Rows {
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

}  // namespace

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
    }
    return rows.finish();
}

}  // namespace lavolta
