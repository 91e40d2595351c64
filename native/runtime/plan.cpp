#include "plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "error.h"
#include "json.h"

namespace lavolta {
namespace {

constexpr int kTerms = 3;
// No calibrated coefficient comes near; sums over a whole run stay finite.
constexpr double kMostNs = 1e15;

using Row = std::array<double, kTerms + 1>;

// Solves the square system of the terms in `chosen` (a bit set), or returns false where it has no single solution.
bool solve(const std::array<Row, kTerms>& full, unsigned chosen, std::array<double, kTerms>& solution) {
    std::array<Row, kTerms> rows{};
    int terms[kTerms], n = 0;
    for (int i = 0; i < kTerms; ++i) {
        if (chosen >> i & 1u) terms[n++] = i;
    }
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) rows[i][j] = full[terms[i]][terms[j]];
        rows[i][n] = full[terms[i]][kTerms];
    }
    for (int pivot = 0; pivot < n; ++pivot) {
        int best = pivot;
        for (int i = pivot + 1; i < n; ++i) {
            if (std::fabs(rows[i][pivot]) > std::fabs(rows[best][pivot])) best = i;
        }
        std::swap(rows[pivot], rows[best]);
        if (!(std::fabs(rows[pivot][pivot]) > 1e-12)) return false;
        for (int i = 0; i < n; ++i) {
            if (i == pivot) continue;
            const double factor = rows[i][pivot] / rows[pivot][pivot];
            for (int j = pivot; j <= n; ++j) rows[i][j] -= factor * rows[pivot][j];
        }
    }
    solution = {};
    for (int i = 0; i < n; ++i) solution[terms[i]] = rows[i][n] / rows[i][i];
    return true;
}

std::string text_of(const Cost& cost) {
    return "[" + json_number(cost.base_ns, "%.9g") + ", " + json_number(cost.token_ns, "%.9g") + ", " +
           json_number(cost.extra_ns, "%.9g") + "]";
}

std::string text_of(const std::vector<Cost>& levels) {
    std::string text = "[";
    for (size_t level = 0; level < levels.size(); ++level) text += (level ? ", " : "") + text_of(levels[level]);
    return text + "]";
}

[[noreturn]] void refuse(const std::string& what) {
    fail(LAVOLTA_PLAN_INVALID, "the plan is invalid: " + what + "; calibrate again.");
}

const Json& field(const Json& json, const char* name, Json::Type type) {
    const Json* found = json.find(name);
    if (!found || !found->is(type)) refuse(std::string("'") + name + "' is missing or of another type");
    return *found;
}

double number_of(const Json& json, const std::string& what, double most) {
    const bool is_number = json.is(Json::Type::number) || json.is(Json::Type::integer);
    if (!is_number || !(json.number >= 0.0 && json.number <= most)) {
        refuse(what + " is not a number between 0 and " + json_number(most, "%g"));
    }
    return json.number;
}

Cost cost_of(const Json& json, const std::string& what) {
    if (!json.is(Json::Type::array) || json.items.size() != kTerms) refuse(what + " is not a list of three numbers");
    return {number_of(json.items[0], what, kMostNs), number_of(json.items[1], what, kMostNs),
            number_of(json.items[2], what, kMostNs)};
}

// One cost per level.
std::vector<Cost> costs_of(const Json& json, const std::string& what) {
    if (!json.is(Json::Type::array)) refuse(what + " is not a list of costs");
    std::vector<Cost> costs;
    for (const Json& cost : json.items) costs.push_back(cost_of(cost, "a cost of " + what));
    return costs;
}

}  // namespace

Cost fit_cost(const std::vector<Sample>& samples) {
    // Terms are divided by their largest value, so that the pivots of the solver have one scale.
    std::array<double, kTerms> scale{1.0, 1.0, 1.0};
    for (const Sample& sample : samples) {
        scale[1] = std::max(scale[1], sample.tokens);
        scale[2] = std::max(scale[2], sample.extra);
    }
    const auto terms_of = [&](const Sample& sample) {
        return std::array<double, kTerms>{1.0, sample.tokens / scale[1], sample.extra / scale[2]};
    };
    std::array<Row, kTerms> normal{};
    for (const Sample& sample : samples) {
        const double weight = 1.0 / std::max(sample.ns, 1.0);
        const std::array<double, kTerms> terms = terms_of(sample);
        for (int i = 0; i < kTerms; ++i) {
            for (int j = 0; j < kTerms; ++j) normal[i][j] += terms[i] * weight * terms[j] * weight;
            normal[i][kTerms] += terms[i] * weight * sample.ns * weight;
        }
    }
    // Pivots of one scale whatever the size of the times.
    const double largest = std::max(normal[0][0], std::numeric_limits<double>::min());
    for (Row& row : normal) {
        for (double& value : row) value /= largest;
    }
    // The best fit without negative coefficient is the best of the plain fits of every subset that has none.
    double least = std::numeric_limits<double>::infinity();
    std::array<double, kTerms> best{};
    for (unsigned chosen = 1; chosen < 1u << kTerms; ++chosen) {
        std::array<double, kTerms> solution;
        if (!solve(normal, chosen, solution)) continue;
        if (std::any_of(solution.begin(), solution.end(), [](double x) { return !(x >= 0.0); })) continue;
        double error = 0.0;
        for (const Sample& sample : samples) {
            const std::array<double, kTerms> terms = terms_of(sample);
            double predicted = 0.0;
            for (int i = 0; i < kTerms; ++i) predicted += solution[i] * terms[i];
            const double relative = (predicted - sample.ns) / std::max(sample.ns, 1.0);
            error += relative * relative;
        }
        if (error < least) {
            least = error;
            best = solution;
        }
    }
    return {best[0], best[1] / scale[1], best[2] / scale[2]};
}

std::string Plan::json() const {
    std::string text = "{\"kind\": \"lavolta-plan\", \"format\": 1, \"bundle\": " + json_quote(bundle) + ", \"isa\": " +
                       json_quote(isa) + ", \"threads\": " + std::to_string(threads) + ", \"margin\": " +
                       json_number(margin, "%.9g") + ", \"embed_ns\": " + text_of(embed) + ", \"finish_ns\": " +
                       text_of(finish) + ", \"finish_per_token_ns\": " + text_of(finish_per_token) + ", \"layers_ns\": [";
    for (size_t layer = 0; layer < layers.size(); ++layer) text += (layer ? ", " : "") + text_of(layers[layer]);
    return text + "]}";
}

Plan parse_plan(std::string_view text) {
    Json json;
    try {
        json = parse_json(text);
    } catch (const JsonError& error) {
        refuse(std::string("it is not JSON, ") + error.what + " at byte " + std::to_string(error.offset));
    }
    const Json* kind = json.find("kind");
    if (!kind || kind->string != "lavolta-plan") refuse("its 'kind' is not 'lavolta-plan'");
    const Json* format = json.find("format");
    if (!format || format->integer != 1) refuse("its 'format' is not 1");
    Plan plan;
    plan.bundle = field(json, "bundle", Json::Type::string).string;
    plan.isa = field(json, "isa", Json::Type::string).string;
    plan.threads = static_cast<uint32_t>(number_of(field(json, "threads", Json::Type::integer), "'threads'", 256));
    const Json* margin = json.find("margin");
    if (!margin) refuse("'margin' is missing");
    plan.margin = number_of(*margin, "'margin'", 10.0);
    plan.embed = cost_of(field(json, "embed_ns", Json::Type::array), "'embed_ns'");
    plan.finish = costs_of(field(json, "finish_ns", Json::Type::array), "'finish_ns'");
    plan.finish_per_token = cost_of(field(json, "finish_per_token_ns", Json::Type::array), "'finish_per_token_ns'");
    for (const Json& levels : field(json, "layers_ns", Json::Type::array).items) {
        plan.layers.push_back(costs_of(levels, "layer " + std::to_string(plan.layers.size())));
    }
    return plan;
}

void check_plan(const Plan& plan, const Plan& expected) {
    const auto made_with = [](const std::string& theirs, const std::string& ours) {
        fail(LAVOLTA_PLAN_INVALID, "the plan was made with " + theirs + ", the model runs with " + ours + "; calibrate again.");
    };
    if (plan.bundle != expected.bundle) fail(LAVOLTA_PLAN_INVALID, "the plan was made for another bundle; calibrate again.");
    if (plan.isa != expected.isa) made_with(plan.isa, expected.isa);
    if (plan.threads != expected.threads) {
        made_with(std::to_string(plan.threads) + " threads", std::to_string(expected.threads));
    }
    if (plan.layers.size() != expected.layers.size()) refuse("it does not have the model's layers");
    const size_t levels = expected.finish.size();
    const auto other = [&](const std::vector<Cost>& costs) { return costs.size() != levels; };
    if (other(plan.finish) || std::any_of(plan.layers.begin(), plan.layers.end(), other)) {
        refuse("it does not have the model's levels");
    }
}

std::string mark_of(std::string_view manifest) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char c : manifest) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
    std::string text(16, '0');
    for (size_t i = 0; i < text.size(); ++i) text[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15u];
    return text;
}

}  // namespace lavolta
