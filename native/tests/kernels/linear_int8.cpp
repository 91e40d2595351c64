// Quantized activations and linear layers on quads: integers are compared exactly.
#include "packed.h"

namespace lavolta {
namespace {

// Bytes of every block, those of absent tokens random: kernels may read them but not use them.
std::vector<uint8_t> quantized(Numbers& numbers, size_t features, size_t tokens) {
    std::vector<uint8_t> bytes(quantized_bytes(features, tokens));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(1 + numbers.below(255));
    return bytes;
}

}  // namespace

void test_quantize(Isa isa, QuantizeKernel* kernel, QuantizeKernel* reference) {
    for (const uint32_t features : {1u, 3u, 8u, 29u}) {
        for (const size_t tokens : {1, 3, 4, 15, 16, 17, 63, 64, 65, 150}) {
            Numbers numbers(features * 1000 + tokens);
            const size_t stride = stride_of(tokens);
            std::vector<float> x = activations(numbers, features, tokens);
            // Tokens of zeros, of numbers too small for a scale, of large ones, and halves between two steps.
            for (size_t f = 0; f < features; ++f) {
                for (size_t t = 0; t < tokens; ++t) {
                    float& v = x[f * stride + t];
                    if (t % 8 == 1) v = 0.0f;
                    if (t % 8 == 2) v *= 1e-37f;
                    if (t % 8 == 3) v *= 1e37f;
                    if (t % 8 == 4) v = f == 0 ? 127.0f : static_cast<float>(static_cast<int>(numbers.below(254))) - 126.5f;
                }
            }
            std::vector<uint8_t> u(quantized_bytes(features, tokens)), expected_u(u);
            std::vector<float> scale(stride, kNan), expected_scale(scale);
            QuantizeArgs args{};
            args.x = x.data();
            args.stride = stride;
            args.features = features;
            args.token_end = tokens;
            args.u = expected_u.data();
            args.scale = expected_scale.data();
            reference(args);
            args.u = u.data();
            args.scale = scale.data();
            for (size_t block = 0; block < tokens; block += kQuantBlock) {
                args.token_begin = block;
                args.token_end = block + kQuantBlock < tokens ? block + kQuantBlock : tokens;
                kernel(args);
            }
            for (size_t t = 0; t < tokens; ++t) {
                expect(scale[t] == expected_scale[t], place("quantize", isa, features, tokens, 0, t), scale[t], expected_scale[t], 0.0);
                for (size_t f = 0; f < features; ++f) {
                    const size_t at = quantized_index(features, tokens, f, t);
                    expect(u[at] == expected_u[at], place("quantize", isa, features, tokens, f, t), u[at], expected_u[at], 0.0);
                }
            }
        }
    }
}

void test_linear_int8(Isa isa, LinearInt8Kernel* kernel, LinearInt8Kernel* reference) {
    for (const uint32_t cell_rows : {1u, 2u, 4u, 8u, 16u}) {
        for (const size_t tokens : {1, 4, 15, 16, 17, 33, 49, 63, 64, 65, 129}) {
            Numbers numbers(cell_rows * 1000 + tokens);
            const uint32_t out = tokens % 2 ? 37 : 1, in = 23;
            // Columns in quads; the values of a ragged band's missing rows are zero, as they are in a bundle.
            const Packed cells = pack(numbers, out, in, cell_rows);
            const size_t quads = cells.columns.size() / kQuad;
            std::vector<int8_t> values(quads * cell_rows * kQuad);
            Packed packed;
            packed.run_ptr.push_back(0);
            uint32_t next = 0;
            for (uint32_t band = 0; band + 1 < cells.run_ptr.size(); ++band) {
                // As many quads as fill the runs of the band, one run or two.
                uint32_t kept = 0;
                for (uint32_t r = cells.run_ptr[band]; r < cells.run_ptr[band + 1]; ++r) kept += cells.runs[r].count;
                const uint32_t count = kept / kQuad;
                for (uint32_t quad = next; quad < next + count; ++quad) {
                    for (uint32_t i = 0; i < cell_rows * kQuad; ++i) {
                        const uint32_t row = band * cell_rows + i / kQuad;
                        // The most that a sum can reach, on the first band.
                        const int value = band == 0 ? 127 : static_cast<int>(numbers.below(255)) - 127;
                        if (row < out) values[quad * cell_rows * kQuad + i] = static_cast<int8_t>(value);
                    }
                }
                const uint32_t half = count / 2;
                if (half) packed.runs.push_back({next, half});
                if (count - half) packed.runs.push_back({next + half, count - half});
                next += count;
                packed.run_ptr.push_back(static_cast<uint32_t>(packed.runs.size()));
            }
            const size_t stride = stride_of(tokens);
            const std::vector<uint8_t> u = quantized(numbers, in, tokens);
            const std::vector<float> scale = numbers.numbers(out), bias = numbers.numbers(out);
            std::vector<float> token_scale = activations(numbers, 1, tokens);
            for (float& v : token_scale) v = std::fabs(v) / 127;
            const std::vector<float> residual = activations(numbers, out, tokens);
            for (const Activation activation : kActivations) {
                for (const bool add : {false, true}) {
                    std::vector<float> y(out * stride + kSlack, kNan), expected(y), before(y);
                    LinearInt8Args args{};
                    args.values = values.data();
                    args.columns = cells.columns.data();
                    args.runs = packed.runs.data();
                    args.run_ptr = packed.run_ptr.data();
                    args.scale = scale.data();
                    args.bias = bias.data();
                    args.u = u.data();
                    args.token_scale = token_scale.data();
                    args.stride = stride;
                    args.in_features = in;
                    args.token_end = tokens;
                    args.band_end = (out + cell_rows - 1) / cell_rows;
                    args.cell_rows = cell_rows;
                    args.out_features = out;
                    args.y = before.data();
                    reference(args);
                    args.activation = activation;
                    args.residual = add ? residual.data() : nullptr;
                    args.y = expected.data();
                    reference(args);
                    args.y = y.data();
                    const uint32_t split = args.band_end / 2;
                    const size_t middle = tokens > kQuantBlock ? kQuantBlock : 0;
                    for (const auto& [begin, end] : {std::pair<uint32_t, uint32_t>{0, split}, {split, args.band_end}}) {
                        for (const auto& [from, to] : {std::pair<size_t, size_t>{0, middle}, {middle, tokens}}) {
                            LinearInt8Args part = args;
                            part.band_begin = begin;
                            part.band_end = end;
                            part.token_begin = from;
                            part.token_end = to;
                            kernel(part);
                        }
                    }
                    for (size_t row = 0; row < out; ++row) {
                        for (size_t t = 0; t < tokens; ++t) {
                            const size_t at = row * stride + t;
                            // Sums are exact and scaled in one order: only an activation may differ.
                            const double own = activation_bound(activation, before[at], 0.0);
                            const double bound = activation == Activation::none ? 0.0 : 2 * own + 2 * kEps * std::fabs(expected[at]);
                            expect_near(y[at], expected[at], bound, place("linear_int8", isa, cell_rows, tokens, row, t));
                        }
                    }
                }
            }
        }
    }
}

}  // namespace lavolta
