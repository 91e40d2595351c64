// Norms, gates, rotary positions, the peak.
#include "check.h"

namespace lavolta {
namespace {

// Values at which activations change their formula, infinities of their squares, and a grid.
std::vector<float> arguments() {
    std::vector<float> x = {0.0f, -0.0f, 5.54f, -5.54f, 5.55f, -5.55f, 43.0f, -43.0f, 44.0f, -44.0f, 1e4f, -1e4f, 3e38f, -3e38f};
    for (int i = -600; i <= 600; ++i) x.push_back(static_cast<float>(i) / 50.0f);
    return x;
}

}  // namespace

void test_norm(Isa isa, NormKernel* kernel, NormKernel* reference) {
    for (const bool rms : {false, true}) {
        for (const uint32_t features : {1u, 3u, 4u, 5u, 20u, 97u}) {
            for (const size_t tokens : {1, 3, 8, 17, 65}) {
                Numbers numbers(features * 100 + tokens);
                const size_t stride = stride_of(tokens);
                const std::vector<float> weight = numbers.numbers(features), bias = numbers.numbers(features);
                std::vector<float> x = activations(numbers, features, tokens), expected(x.size(), kNan);
                // A mean of about twenty deviations: a one-pass variance would lose digits.
                for (float& v : x) v += 10.0f;
                NormArgs args{};
                args.x = x.data();
                args.weight = weight.data();
                args.bias = rms ? nullptr : bias.data();
                args.y = expected.data();
                args.stride = stride;
                args.token_end = tokens;
                args.features = features;
                args.eps = 1e-2f;
                args.rms = rms;
                reference(args);
                std::vector<float> y = x;
                args.x = args.y = y.data();
                kernel(args);
                // The mean errs by features eps |x| < 11 features eps, and so does every centered value; the deviation is at
                // least sqrt(eps argument) = 0.1, the normalized value at most sqrt(features).
                const double moved = (features + 4) * double{kEps} * 11 / 0.1;
                const double largest = std::sqrt(static_cast<double>(features)) + 1;
                for (size_t f = 0; f < features; ++f) {
                    for (size_t t = 0; t < tokens; ++t) {
                        const size_t at = f * stride + t;
                        const double bound = 2 * (std::fabs(weight[f]) * (2 * moved + 8 * kEps) * largest + kEps);
                        expect_near(y[at], expected[at], bound, place("norm", isa, features, tokens, f, t));
                    }
                }
            }
        }
    }
}

void test_gate(Isa isa, GateKernel* kernel, GateKernel* reference) {
    const std::vector<float> gate = arguments();
    // Products with ones are exact: what is left is the activation's own error.
    for (const std::vector<float>& factors : {std::vector<float>(gate.size(), 1.0f), Numbers(1).numbers(gate.size())}) {
        for (const Activation activation : kActivations) {
            for (const size_t count : {size_t{0}, size_t{1}, size_t{3}, size_t{5}, size_t{17}, gate.size()}) {
                std::vector<float> y(factors), expected(factors);
                kernel({gate.data(), y.data(), count, activation});
                reference({gate.data(), expected.data(), count, activation});
                for (size_t i = 0; i < y.size(); ++i) {
                    // The product of an error that |factor| <= 1 does not enlarge is rounded twice.
                    const double rounded = factors[i] == 1.0f ? 0.0 : 2 * kEps * std::fabs(expected[i]);
                    const double bound = 2 * activation_bound(activation, gate[i], 0.0) + rounded;
                    expect_near(y[i], expected[i], bound, place("gate", isa, static_cast<size_t>(activation), count, i, 0));
                }
            }
        }
    }
}

void test_rotate(Isa isa, RotateKernel* kernel, RotateKernel* reference) {
    for (const uint32_t head_size : {2u, 4u, 10u}) {
        for (const size_t tokens : {1, 3, 4, 17, 33}) {
            Numbers numbers(head_size * 100 + tokens);
            const std::vector<float> cos = activations(numbers, head_size / 2, tokens), sin = activations(numbers, head_size / 2, tokens);
            std::vector<float> y = activations(numbers, head_size, tokens), expected(y);
            RotateArgs args{};
            args.cos = cos.data();
            args.sin = sin.data();
            args.stride = stride_of(tokens);
            args.token_end = tokens;
            args.head_size = head_size;
            args.x = expected.data();
            reference(args);
            args.x = y.data();
            kernel(args);
            for (size_t f = 0; f < head_size; ++f) {
                for (size_t t = 0; t < tokens; ++t) {
                    const size_t at = f * args.stride + t;
                    // Two products of numbers below 1 and their sum, three roundings each.
                    expect_near(y[at], expected[at], 2 * 4 * double{kEps}, place("rotate", isa, head_size, tokens, f, t));
                }
            }
        }
    }
}

namespace {

// The work is what the rounds say, whatever the registers.
void check_peak(const char* op, Isa isa, PeakKernel* kernel) {
    const uint64_t one = kernel(1);
    for (const uint64_t rounds : {0u, 1u, 7u}) {
        const uint64_t done = kernel(rounds);
        expect(one > 0 && done == rounds * one, place(op, isa, rounds, 0, 0, 0), static_cast<double>(done),
               static_cast<double>(rounds * one), 0.0);
    }
}

}  // namespace

void test_peak(Isa isa, PeakKernel* kernel, PeakKernel*) { check_peak("peak", isa, kernel); }

void test_peak_int8(Isa isa, PeakKernel* kernel, PeakKernel*) { check_peak("peak_int8", isa, kernel); }

}  // namespace lavolta
