// What the layers of every level cost on this machine: fitted by calibration, kept as JSON, read by runs with a deadline.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lavolta {

// Nanoseconds as a function of the batch that goes through the layers together. `tokens` is rounded up to whole registers;
// `extra` is what grows beside it: for a layer the sum of squared lengths (attention), for the end the rows of the output.
struct Cost {
    double base_ns = 0.0, token_ns = 0.0, extra_ns = 0.0;

    double ns(double tokens, double extra) const { return base_ns + token_ns * tokens + extra_ns * extra; }
};

struct Sample {
    double tokens, extra, ns;
};

// Least squares of the relative error over all costs without negative coefficient.
Cost fit_cost(const std::vector<Sample>& samples);

struct Plan {
    // What the costs hold for; another model, kernel or thread count needs its own.
    std::string bundle, isa;
    uint32_t threads = 1;
    // A run aims at deadline / (1 + margin): how far calibration runs were from what the costs predict.
    double margin = 0.0;
    Cost embed, finish_per_token;
    std::vector<Cost> finish;               // (levels): an output layer may be packed, too
    std::vector<std::vector<Cost>> layers;  // (layers)(levels)

    std::string json() const;
};

// Throws Error with the status plan-invalid.
Plan parse_plan(std::string_view text);

// Throws Error with the status plan-invalid unless `plan` has the layers, the levels and the marks of `expected`.
void check_plan(const Plan& plan, const Plan& expected);

// A mark of a manifest: 16 hexadecimal digits (FNV-1a).
std::string mark_of(std::string_view manifest);

}  // namespace lavolta
