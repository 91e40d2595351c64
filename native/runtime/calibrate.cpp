// Measure every layer at every level for a few batches, and fit the plan.
#include <algorithm>
#include <cmath>

#include "deadline.h"
#include "error.h"
#include "pass.h"

namespace lavolta {
namespace {

constexpr uint32_t kTokens[] = {8, 32, 64, 128, 256};
constexpr uint32_t kRepetitions = 5;
constexpr size_t kBatch = 4;
// However calm it was while we measured, something is left to chance; however wild, a deadline is not given away.
constexpr double kLeastMargin = 0.02, kMostMargin = 0.25;

// One level, and the time of everything.
class Stopwatch : public Course {
   public:
    Stopwatch(uint32_t level, const lavolta_calibration& options) : level_(level), clock_(options.clock, options.user) {}

    void begin(uint32_t) override { clock_.tick(); }
    uint32_t level_of(size_t, size_t, size_t) override {
        times_ns.push_back(clock_.tick());
        return level_;
    }
    void layers_done() override { times_ns.push_back(clock_.tick()); }
    void pass_done() override { times_ns.push_back(clock_.tick()); }

    std::vector<double> times_ns;  // embeddings, layers, end

   private:
    uint32_t level_;
    Clock clock_;
};

struct Shape {
    std::vector<uint32_t> lengths;
    bool per_token;
};

std::vector<Shape> shapes_of(const Spec& spec, const lavolta_calibration& options) {
    std::vector<uint32_t> lengths(options.tokens, options.tokens + options.token_counts);
    if (lengths.empty()) {
        for (const uint32_t tokens : kTokens) {
            if (tokens <= spec.max_tokens) lengths.push_back(tokens);
        }
        if (spec.max_tokens < *std::rbegin(kTokens) && (lengths.empty() || lengths.back() != spec.max_tokens)) {
            lengths.push_back(spec.max_tokens);
        }
    }
    std::vector<Shape> shapes;
    for (const uint32_t tokens : lengths) {
        if (tokens == 0 || tokens > spec.max_tokens) {
            fail(LAVOLTA_INVALID_ARGUMENT, "a token count to calibrate with is " + std::to_string(tokens) +
                                               "; give 1 to " + std::to_string(spec.max_tokens) + ".");
        }
        shapes.push_back({{tokens}, false});
    }
    // Several sequences tell rows of the output and pairs of tokens apart from tokens. They have to fit in one pass: the times of
    // the first one are taken for those of all.
    const uint32_t longest = std::min(*std::max_element(lengths.begin(), lengths.end()), static_cast<uint32_t>(kPassTokens));
    shapes.push_back({std::vector<uint32_t>(kBatch, std::max(longest / static_cast<uint32_t>(kBatch), 1u)), false});
    const size_t whole = shapes.size();
    for (size_t i = 0; i < whole; ++i) shapes.push_back({shapes[i].lengths, true});
    return shapes;
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

}  // namespace

Plan calibrate(Model& model, const lavolta_calibration& options) {
    const Bundle& bundle = model.bundle();
    const size_t layers = bundle.layers.size();
    const auto levels = static_cast<uint32_t>(bundle.levels.size());
    const std::vector<Shape> shapes = shapes_of(bundle.spec, options);
    const uint32_t repetitions = options.repetitions ? options.repetitions : kRepetitions;
    // times[shape][level][part][repetition]; hidden states per token are measured at the sparsest level alone: nothing but
    // their end differs, and that is the same at every level.
    std::vector<std::vector<std::vector<std::vector<double>>>> times(
        shapes.size(), {levels, std::vector<std::vector<double>>(layers + 2)});
    std::vector<int32_t> ids;
    std::vector<float> output;
    for (uint32_t repetition = 0; repetition <= repetitions; ++repetition) {
        for (size_t s = 0; s < shapes.size(); ++s) {
            const std::vector<uint32_t>& lengths = shapes[s].lengths;
            size_t tokens = 0;
            for (const uint32_t length : lengths) tokens += length;
            ids.assign(tokens, 0);
            const lavolta_batch batch{ids.data(), nullptr, lengths.data(), lengths.size(), shapes[s].per_token};
            size_t rows, columns;
            model.output_shape(batch, rows, columns);
            output.resize(std::max(output.size(), rows * columns));
            for (uint32_t level = shapes[s].per_token ? levels - 1 : 0; level < levels; ++level) {
                Stopwatch watch(level, options);
                model.run(batch, output.data(), output.size(), watch);
                // The first round pages the weights in and lets buffers grow.
                if (repetition == 0) continue;
                for (size_t part = 0; part < layers + 2; ++part) times[s][level][part].push_back(watch.times_ns[part]);
            }
        }
    }

    Plan plan = model.blank_plan();
    std::vector<PassWork> works;
    for (const Shape& shape : shapes) {
        const lavolta_batch batch{nullptr, nullptr, shape.lengths.data(), shape.lengths.size(), shape.per_token};
        works.push_back(work_of(bundle, batch, 0, shape.lengths.size()));
    }
    const auto fit = [&](bool per_token, uint32_t level, size_t part, double PassWork::*extra) {
        std::vector<Sample> samples;
        for (size_t s = 0; s < shapes.size(); ++s) {
            if (shapes[s].per_token != per_token) continue;
            samples.push_back({works[s].tokens, extra ? works[s].*extra : 0.0, median(times[s][level][part])});
        }
        return fit_cost(samples);
    };
    plan.embed = fit(false, levels - 1, 0, nullptr);
    for (uint32_t level = 0; level < levels; ++level) plan.finish[level] = fit(false, level, layers + 1, &PassWork::rows);
    plan.finish_per_token = fit(true, levels - 1, layers + 1, &PassWork::rows);
    for (size_t layer = 0; layer < layers; ++layer) {
        for (uint32_t level = 0; level < levels; ++level) {
            plan.layers[layer][level] = fit(false, level, layer + 1, &PassWork::squares);
        }
    }

    // How far nine runs of ten stayed above what the plan says of them.
    std::vector<double> ratios;
    for (size_t s = 0; s < shapes.size(); ++s) {
        if (shapes[s].per_token) continue;
        for (uint32_t level = 0; level < levels; ++level) {
            const PassWork& work = works[s];
            double predicted = plan.embed.ns(work.tokens, 0.0) + plan.finish[level].ns(work.tokens, work.rows);
            for (size_t layer = 0; layer < layers; ++layer) {
                predicted += plan.layers[layer][level].ns(work.tokens, work.squares);
            }
            for (uint32_t repetition = 0; repetition < repetitions; ++repetition) {
                double taken = 0.0;
                for (const std::vector<double>& part : times[s][level]) taken += part[repetition];
                if (predicted > 0.0) ratios.push_back(taken / predicted);
            }
        }
    }
    double margin = 0.0;
    if (!ratios.empty()) {
        const auto ninth = ratios.begin() + static_cast<ptrdiff_t>(ratios.size() * 9 / 10);
        std::nth_element(ratios.begin(), ninth, ratios.end());
        margin = *ninth - 1.0;
    }
    plan.margin = std::min(std::max(margin, kLeastMargin), kMostMargin);
    return plan;
}

}  // namespace lavolta
