// The kernels of one token: vectors without padding, of which nothing behind the end may be read into a result.
#include "packed.h"

namespace lavolta {

void test_token_linear(Isa isa, TokenLinearKernel* kernel, TokenLinearKernel* reference) {
    // One less, equal and one more than a register (4, 8, 16), and primes.
    for (const uint32_t cell_rows : {1u, 2u, 4u, 8u, 16u}) {
        for (const uint32_t in : {1u, 3u, 4u, 5u, 7u, 8u, 9u, 15u, 16u, 17u, 31u, 33u, 131u}) {
            Numbers numbers(cell_rows * 1000 + in);
            const uint32_t out = in % 2 ? 37 : 1;
            const uint32_t bands = (out + cell_rows - 1) / cell_rows;
            const Stretched cells = stretched(numbers, bands, in);
            const std::vector<float> stored = numbers.numbers(size_t{cells.units} * cell_rows), biases = numbers.numbers(out);
            std::vector<uint16_t> columns(cells.units);
            for (uint16_t& column : columns) column = static_cast<uint16_t>(numbers.below(in));
            const std::vector<float> x = numbers.numbers(in), residual = numbers.numbers(out);
            for (const Activation activation : kActivations) {
                for (const bool add : {false, true}) {
                    std::vector<float> y(out, kNan), expected(y), before(y), magnitude(y);
                    TokenLinearArgs args{};
                    args.values = stored.data();
                    args.columns = columns.data();
                    args.stretches = cells.stretches.data();
                    args.stretch_count = cells.stretches.size();
                    args.bias = biases.data();
                    args.x = x.data();
                    args.band_end = bands;
                    args.cell_rows = cell_rows;
                    args.out_features = out;
                    args.y = before.data();
                    reference(args);
                    args.activation = activation;
                    args.residual = add ? residual.data() : nullptr;
                    args.y = expected.data();
                    reference(args);
                    // In two parts, as threads divide them.
                    args.y = y.data();
                    const uint32_t split = bands / 2;
                    args.band_end = split;
                    kernel(args);
                    args.band_begin = split;
                    args.band_end = bands;
                    kernel(args);
                    // The reference of absolute values gives the magnitude of the sums.
                    std::vector<float> values(stored), bias(biases), absolute(x);
                    for (auto* list : {&values, &bias, &absolute}) {
                        for (float& v : *list) v = std::fabs(v);
                    }
                    TokenLinearArgs sizes = args;
                    sizes.band_begin = 0;
                    sizes.values = values.data();
                    sizes.bias = bias.data();
                    sizes.x = absolute.data();
                    sizes.residual = nullptr;
                    sizes.activation = Activation::none;
                    sizes.y = magnitude.data();
                    reference(sizes);
                    for (size_t row = 0; row < out; ++row) {
                        const double sum = 2 * (in + 1) * double{kEps} * 1.01 * magnitude[row];
                        const double own = activation_bound(activation, before[row], sum);
                        const double bound = (activation == Activation::none ? 1 : 2) * own + 2 * kEps * std::fabs(expected[row]);
                        expect_near(y[row], expected[row], bound, place("token_linear", isa, cell_rows, in, row, add));
                    }
                }
            }
        }
    }
}

void test_token_linear_int8(Isa isa, TokenLinearInt8Kernel* kernel, TokenLinearInt8Kernel* reference) {
    for (const uint32_t cell_rows : {1u, 2u, 4u, 8u, 16u}) {
        // Quads of a band: none, one, one less, equal and one more than a register or a step of them, a prime.
        for (const uint32_t quads : {0u, 1u, 2u, 3u, 4u, 5u, 15u, 16u, 17u, 37u}) {
            Numbers numbers(cell_rows * 1000 + quads);
            const uint32_t out = 37, in = 150, bands = (out + cell_rows - 1) / cell_rows;
            const Stretched cells = stretched(numbers, bands, quads);
            std::vector<int8_t> values(size_t{cells.units} * cell_rows * kQuad);
            std::vector<uint16_t> columns(size_t{cells.units} * kQuad);
            std::vector<int8_t> q(in + kTokenSlack);
            for (const Stretch& stretch : cells.stretches) {
                size_t at = size_t{stretch.first} * cell_rows * kQuad;
                for (uint32_t band = 0; band < bands; ++band) {
                    const size_t end = at + size_t{stretch.sizes[band]} * cell_rows * kQuad;
                    for (size_t i = 0; at < end; ++at, ++i) {
                        const uint32_t row = band * cell_rows + static_cast<uint32_t>(i / kQuad % cell_rows);
                        // The most that a sum can reach, on the first band.
                        const int value = band == 0 ? 127 : static_cast<int>(numbers.below(255)) - 127;
                        values[at] = static_cast<int8_t>(row < out ? value : 0);
                    }
                }
            }
            const std::vector<float> scale = numbers.numbers(out), bias = numbers.numbers(out), residual = numbers.numbers(out);
            const float token_scale = 0.01f;
            // The largest inputs, and random ones.
            for (const bool largest : {false, true}) {
                for (int8_t& v : q) v = static_cast<int8_t>(largest ? 127 : static_cast<int>(numbers.below(255)) - 127);
                for (const Activation activation : kActivations) {
                    for (const bool add : {false, true}) {
                        std::vector<float> y(out, kNan), expected(y), before(y);
                        TokenLinearInt8Args args{};
                        args.values = values.data();
                        args.columns = columns.data();
                        args.stretches = cells.stretches.data();
                        args.stretch_count = cells.stretches.size();
                        args.scale = scale.data();
                        args.bias = bias.data();
                        args.q = q.data();
                        args.token_scale = &token_scale;
                        args.band_end = bands;
                        args.cell_rows = cell_rows;
                        args.out_features = out;
                        args.y = before.data();
                        reference(args);
                        args.activation = activation;
                        args.residual = add ? residual.data() : nullptr;
                        args.y = expected.data();
                        reference(args);
                        args.y = y.data();
                        args.band_end = bands / 2;
                        kernel(args);
                        args.band_begin = bands / 2;
                        args.band_end = bands;
                        kernel(args);
                        for (size_t row = 0; row < out; ++row) {
                            // Sums are exact and scaled in one order: only an activation may differ.
                            const double own = 2 * activation_bound(activation, before[row], 0.0) + 2 * kEps * std::fabs(expected[row]);
                            const double bound = activation == Activation::none ? 0.0 : own;
                            expect_near(y[row], expected[row], bound, place("token_linear_int8", isa, cell_rows, quads, row, add));
                        }
                    }
                }
            }
        }
    }
}

void test_token_quantize(Isa isa, TokenQuantizeKernel* kernel, TokenQuantizeKernel* reference) {
    for (const uint32_t features : {1u, 3u, 4u, 7u, 8u, 9u, 15u, 16u, 17u, 33u, 131u}) {
        // Ordinary numbers, zeros, numbers too small for a scale, large ones.
        for (const float factor : {1.0f, 0.0f, 1e-37f, 1e37f}) {
            std::vector<float> x = Numbers(features).numbers(features);
            for (float& v : x) v *= factor;
            std::vector<int8_t> q(features, -128), expected(q);
            float scale = kNan, expected_scale = kNan;
            kernel({x.data(), q.data(), &scale, features});
            reference({x.data(), expected.data(), &expected_scale, features});
            expect(scale == expected_scale, place("token_quantize", isa, features, 0, 0, 0), scale, expected_scale, 0.0);
            for (size_t f = 0; f < features; ++f) {
                expect(q[f] == expected[f], place("token_quantize", isa, features, 1, f, 0), q[f], expected[f], 0.0);
            }
        }
    }
}

void test_token_dense(Isa isa, TokenDenseKernel* kernel, TokenDenseKernel* reference) {
    for (const uint32_t rows : {1u, 3u, 4u, 7u, 16u, 33u}) {
        for (const uint32_t in : {1u, 3u, 4u, 7u, 8u, 9u, 15u, 16u, 17u, 33u, 131u}) {
            Numbers numbers(rows * 1000 + in);
            const std::vector<float> weight = numbers.numbers(size_t{rows} * in), bias = numbers.numbers(rows), x = numbers.numbers(in);
            std::vector<float> y(rows, kNan), expected(y);
            TokenDenseArgs args{weight.data(), bias.data(), x.data(), expected.data(), 0, rows, in, Activation::tanh};
            reference(args);
            args.y = y.data();
            kernel(args);
            for (size_t row = 0; row < rows; ++row) {
                double magnitude = std::fabs(bias[row]);
                for (size_t i = 0; i < in; ++i) magnitude += std::fabs(double{weight[row * in + i]} * x[i]);
                const double bound = 2 * activation_bound(Activation::tanh, 1.0, (in + 1) * double{kEps} * magnitude);
                expect_near(y[row], expected[row], bound, place("token_dense", isa, rows, in, row, 0));
            }
        }
    }
}

void test_token_norm(Isa isa, TokenNormKernel* kernel, TokenNormKernel* reference) {
    for (const bool rms : {false, true}) {
        for (const uint32_t features : {1u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 97u}) {
            Numbers numbers(features);
            const std::vector<float> weight = numbers.numbers(features), bias = numbers.numbers(features);
            std::vector<float> y = numbers.numbers(features), expected(features, kNan);
            // A mean of about twenty deviations: a one-pass variance would lose digits.
            for (float& v : y) v += 10.0f;
            TokenNormArgs args{y.data(), weight.data(), rms ? nullptr : bias.data(), expected.data(), features, 1e-2f, rms};
            reference(args);
            args.y = y.data();
            kernel(args);
            // As in test_norm.
            const double moved = (features + 4) * double{kEps} * 11 / 0.1, largest = std::sqrt(static_cast<double>(features)) + 1;
            for (size_t f = 0; f < features; ++f) {
                const double bound = 2 * (std::fabs(weight[f]) * (2 * moved + 8 * kEps) * largest + kEps);
                expect_near(y[f], expected[f], bound, place("token_norm", isa, features, rms, f, 0));
            }
        }
    }
}

}  // namespace lavolta
