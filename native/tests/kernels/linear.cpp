// Linear layers on cells and dense ones.
#include "packed.h"

namespace lavolta {

// As much as the reference takes or more, and the same for low cells, whose activations nothing copies.
void test_linear_bytes(Isa isa, LinearBytesKernel* kernel, LinearBytesKernel* reference) {
    for (const uint32_t cell_rows : {1u, 2u, 4u, 8u, 16u}) {
        const size_t bytes = kernel(cell_rows), least = reference(cell_rows);
        const bool good = bytes == least || (cell_rows >= 4 && bytes > least);
        expect_near(good, true, 0.0, place("linear_bytes", isa, cell_rows, bytes, least, 0));
    }
}

void test_linear(Isa isa, LinearKernel* kernel, LinearKernel* reference) {
    // 37 rows are ragged for every cell height above 1; 23 inputs are a prime; tokens: 1, one less, equal and one more than a
    // register (4, 8, 16), a padded row, and the widest tiles.
    for (const uint32_t cell_rows : {1u, 2u, 4u, 8u, 16u}) {
        // 131 tokens: so many columns that low cells are visited block by block.
        for (const size_t tokens : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 97, 129, 131}) {
            if (tokens == 131 && cell_rows > 2) continue;
            Numbers numbers(cell_rows * 1000 + tokens);
            const uint32_t out = tokens % 2 ? 37 : 1, in = tokens == 131 ? 511 : tokens % 3 ? 23 : 1;
            const Packed packed = pack(numbers, out, in, cell_rows);
            const size_t stride = stride_of(tokens);
            const std::vector<float> x = activations(numbers, in, tokens), residual = activations(numbers, out, tokens);
            for (const Activation activation : kActivations) {
                if (tokens == 131 && activation != Activation::none) continue;  // the emulators are slow
                for (const bool add : {false, true}) {
                    std::vector<float> y(out * stride + kSlack, kNan), expected(y), magnitude(y), before(y);
                    LinearArgs args{};
                    args.values = packed.values.data();
                    args.columns = packed.columns.data();
                    args.runs = packed.runs.data();
                    args.run_ptr = packed.run_ptr.data();
                    args.bias = packed.bias.data();
                    args.x = x.data();
                    args.x_stride = args.stride = stride;
                    args.token_end = tokens;
                    args.band_end = (out + cell_rows - 1) / cell_rows;
                    args.cell_rows = cell_rows;
                    args.out_features = out;
                    args.in_features = in;
                    args.y = before.data();
                    reference(args);
                    args.residual = add ? residual.data() : nullptr;
                    args.activation = activation;
                    args.y = expected.data();
                    reference(args);
                    // Bands and tokens in two parts, as threads divide them; the second range of tokens is padded by nothing.
                    args.y = y.data();
                    const uint32_t split = args.band_end / 2;
                    const size_t middle = tokens / 2 / kTokenPad * kTokenPad;
                    for (const auto& [begin, end] : {std::pair<uint32_t, uint32_t>{0, split}, {split, args.band_end}}) {
                        for (const auto& [from, to] : {std::pair<size_t, size_t>{0, middle}, {middle, tokens}}) {
                            LinearArgs part = args;
                            part.band_begin = begin;
                            part.band_end = end;
                            part.token_begin = from;
                            part.token_end = to;
                            kernel(part);
                        }
                    }
                    // The reference of absolute values gives the magnitude of the sums.
                    std::vector<float> values(packed.values), bias(packed.bias), absolute(x);
                    for (float& v : values) v = std::fabs(v);
                    for (float& v : bias) v = std::fabs(v);
                    for (float& v : absolute) v = std::fabs(v);
                    LinearArgs sizes = args;
                    sizes.values = values.data();
                    sizes.bias = bias.data();
                    sizes.x = absolute.data();
                    sizes.residual = nullptr;
                    sizes.activation = Activation::none;
                    sizes.y = magnitude.data();
                    reference(sizes);
                    for (size_t row = 0; row < out; ++row) {
                        for (size_t t = 0; t < tokens; ++t) {
                            const size_t at = row * stride + t;
                            const double sum = 2 * (in + 1) * double{kEps} * 1.01 * magnitude[at];
                            double bound = activation_bound(activation, before[at], sum);
                            bound = (activation == Activation::none ? 1 : 2) * bound + 2 * kEps * std::fabs(expected[at]);
                            expect_near(y[at], expected[at], bound, place("linear", isa, cell_rows, tokens, row, t));
                        }
                    }
                }
            }
        }
    }
}

void test_dense(Isa isa, DenseKernel* kernel, DenseKernel* reference) {
    for (const uint32_t rows : {1u, 3u, 4u, 5u, 7u, 8u, 9u, 17u}) {
        for (const uint32_t in : {1u, 3u, 4u, 5u, 29u}) {
            for (const size_t tokens : {1, 4, 15, 16, 17, 49}) {
                Numbers numbers(rows * 1000 + in * 100 + tokens);
                const size_t stride = stride_of(tokens);
                const std::vector<float> weight = numbers.numbers(rows * in), bias = numbers.numbers(rows);
                const std::vector<float> x = activations(numbers, in, tokens);
                std::vector<float> y(rows * stride + kSlack, kNan), expected(y);
                DenseArgs args{};
                args.weight = weight.data();
                args.bias = bias.data();
                args.x = x.data();
                args.stride = stride;
                args.token_end = tokens;
                args.row_end = rows;
                args.in_features = in;
                args.activation = Activation::tanh;
                args.y = expected.data();
                reference(args);
                args.y = y.data();
                kernel(args);
                for (size_t row = 0; row < rows; ++row) {
                    for (size_t t = 0; t < tokens; ++t) {
                        double magnitude = std::fabs(bias[row]);
                        for (size_t i = 0; i < in; ++i) magnitude += std::fabs(double{weight[row * in + i]} * x[i * stride + t]);
                        const double bound = 2 * activation_bound(Activation::tanh, 1.0, (in + 1) * double{kEps} * magnitude);
                        expect_near(y[row * stride + t], expected[row * stride + t], bound, place("dense", isa, rows, in, row, t));
                    }
                }
            }
        }
    }
}

}  // namespace lavolta
