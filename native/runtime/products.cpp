// Linear layers of a run: which kernel, over which tokens and bands.
#include <algorithm>

#include "model.h"

namespace lavolta {
namespace {

// `tokens` in equal parts of at most `budget` where a token has `bytes`, in whole steps.
size_t token_block(size_t tokens, size_t bytes, size_t step, size_t budget = kCachedBytes) {
    const size_t most = std::max<size_t>(budget / bytes / step, 1) * step;
    const size_t parts = std::max<size_t>((tokens + most - 1) / most, 1);
    return ((tokens + parts - 1) / parts + kTokenPad - 1) / kTokenPad * kTokenPad;
}

// Tokens that fill the registers of a tile, or some tiles: the lower the cells, the wider the tile.
size_t tile_step(uint32_t cell_rows) { return cell_rows >= 8 ? 48 : cell_rows == 1 ? 128 : 64; }

// The same for quantized inputs, whole blocks of them.
size_t quantized_token_block(size_t in_features) {
    return std::max<size_t>(kCachedBytes / in_features / kQuantBlock, 1) * kQuantBlock;
}

// Runs kernel(args) over blocks of tokens and chunks of bands.
template <class Args, class Kernel>
void for_parts(Pool& pool, size_t tokens, size_t block, uint32_t bands, const Args& all, const Kernel& kernel) {
    const size_t blocks = (tokens + block - 1) / block;
    // Four chunks a thread even out bands of different fill and cores of different speed; one chunk where nobody shares. They
    // shrink evenly to almost nothing, so that whoever takes the last one keeps nobody waiting.
    const size_t chunks = std::min<size_t>(bands, pool.threads() > 1 ? pool.threads() * 4 : 1);
    const auto band = [&](size_t chunk) {
        return static_cast<uint32_t>(uint64_t{bands} * (2 * chunks * chunk - chunk * chunk) / (chunks * chunks));
    };
    pool.run(blocks * chunks, [&](size_t item, uint32_t) {
        Args part = all;
        part.token_begin = item / chunks * block;
        part.token_end = std::min(part.token_begin + block, tokens);
        part.band_begin = band(item % chunks);
        part.band_end = band(item % chunks + 1);
        kernel(part);
    });
}

// Runs a kernel over chunks of rows, some for each thread, for the one token of a session.
template <class Kernel>
void for_chunks(Pool& pool, uint32_t count, const Kernel& kernel) {
    const uint32_t chunks = std::min(count, pool.threads() > 1 ? pool.threads() * 4 : 1);
    pool.run(chunks, [&](size_t item, uint32_t) {
        kernel(static_cast<uint32_t>(uint64_t{count} * item / chunks), static_cast<uint32_t>(uint64_t{count} * (item + 1) / chunks));
    });
}

}  // namespace

uint8_t* Model::quantized(size_t features, size_t tokens) {
    return reinterpret_cast<uint8_t*>(quantized_.reserve(quantized_bytes(features, tokens) / sizeof(float)));
}

int8_t* Model::token_quantized(size_t features) {
    return reinterpret_cast<int8_t*>(quantized_.reserve((features + kTokenSlack) / sizeof(float) + 1));
}

void Model::quantize(size_t tokens, size_t stride, const float* x, std::initializer_list<const Linear*> readers) {
    const auto int8 = [](const Linear* reader) { return reader->precision == Precision::int8; };
    if (std::none_of(readers.begin(), readers.end(), int8)) return;
    if (stride == 1) {
        const uint32_t features = (*readers.begin())->in_features;
        kernels_.token_quantize({x, token_quantized(features), token_scale_.reserve(1), features});
        return;
    }
    QuantizeArgs all{};
    all.features = (*readers.begin())->in_features;
    all.x = x;
    all.u = quantized(all.features, tokens);
    all.scale = token_scale_.reserve(tokens + kTokenPad);
    all.stride = stride;
    pool_.run((tokens + kQuantBlock - 1) / kQuantBlock, [&](size_t item, uint32_t) {
        QuantizeArgs part = all;
        part.token_begin = item * kQuantBlock;
        part.token_end = std::min(part.token_begin + kQuantBlock, tokens);
        kernels_.quantize(part);
    });
}

size_t Model::ffn_block(size_t tokens) const {
    const Linear& down = bundle_.layers[0].down;
    // Weights pass once per block: int8 computes so fast that passing them twice costs more than activations that leave the cache.
    if (down.precision == Precision::int8) return quantized_token_block(down.in_features * sizeof(float) / 2);
    return linear_block(tokens, down);
}

size_t Model::linear_block(size_t tokens, const Linear& layer) const {
    return token_block(tokens, layer.in_features * sizeof(float), tile_step(layer.cell_rows), kernels_.linear_bytes(layer.cell_rows));
}

void Model::linear(size_t tokens, const Linear& layer, uint32_t level, const float* x, size_t x_stride, float* y, size_t y_stride,
                   const float* residual, Activation activation) {
    if (y_stride == 1) return token_linear(layer, level, x, y, residual, activation);
    runs_.read(layer, level);
    // What both precisions share.
    const auto fill = [&](auto& args) {
        args.columns = layer.columns;
        args.runs = runs_.runs.data();
        args.run_ptr = runs_.run_ptr.data();
        args.bias = layer.bias;
        args.residual = residual;
        args.y = y;
        args.stride = y_stride;
        args.cell_rows = layer.cell_rows;
        args.out_features = layer.out_features;
        args.activation = activation;
    };
    if (layer.precision == Precision::int8) {
        LinearInt8Args all{};
        fill(all);
        all.values = layer.values_int8;
        all.scale = layer.scale;
        all.in_features = layer.in_features;
        all.u = quantized(layer.in_features, tokens);
        all.token_scale = token_scale_.reserve(tokens + kTokenPad);
        return for_parts(pool_, tokens, quantized_token_block(layer.in_features), layer.bands, all,
                         [&](const LinearInt8Args& part) { kernels_.linear_int8(part); });
    }
    LinearArgs all{};
    fill(all);
    all.values = layer.values;
    all.x = x;
    all.x_stride = x_stride;
    all.in_features = layer.in_features;
    for_parts(pool_, tokens, linear_block(tokens, layer), layer.bands, all, [&](const LinearArgs& part) { kernels_.linear(part); });
}

void Model::token_linear(const Linear& layer, uint32_t level, const float* x, float* y, const float* residual,
                         Activation activation) {
    layer.find_stretches(level, stretches_);
    const auto run = [&](auto args, auto* kernel) {
        args.columns = layer.columns;
        args.stretches = stretches_.data();
        args.stretch_count = stretches_.size();
        args.bias = layer.bias;
        args.residual = residual;
        args.y = y;
        args.cell_rows = layer.cell_rows;
        args.out_features = layer.out_features;
        args.activation = activation;
        for_chunks(pool_, layer.bands, [&](uint32_t begin, uint32_t end) {
            auto part = args;
            part.band_begin = begin;
            part.band_end = end;
            kernel(part);
        });
    };
    if (layer.precision == Precision::int8) {
        TokenLinearInt8Args args{};
        args.values = layer.values_int8;
        args.scale = layer.scale;
        args.q = token_quantized(layer.in_features);
        args.token_scale = token_scale_.reserve(1);
        return run(args, kernels_.token_linear_int8);
    }
    TokenLinearArgs args{};
    args.values = layer.values;
    args.x = x;
    run(args, kernels_.token_linear);
}

void Model::dense(const float* weight, const float* bias, uint32_t outputs, Activation activation, const float* x, float* y,
                  size_t tokens, size_t stride) {
    if (stride == 1) {
        return for_chunks(pool_, outputs, [&](uint32_t begin, uint32_t end) {
            kernels_.token_dense({weight, bias, x, y, begin, end, bundle_.spec.hidden, activation});
        });
    }
    const size_t block = token_block(tokens, bundle_.spec.hidden * sizeof(float), tile_step(8));
    const size_t blocks = (tokens + block - 1) / block;
    // Chunks of whole row tiles.
    constexpr size_t rows = 16;
    const size_t groups = (outputs + rows - 1) / rows;
    const size_t chunks = pool_.threads() > 1 ? std::min<size_t>(groups, pool_.threads() * 4) : 1;
    pool_.run(blocks * chunks, [&](size_t item, uint32_t) {
        DenseArgs args{};
        args.weight = weight;
        args.bias = bias;
        args.x = x;
        args.y = y;
        args.stride = stride;
        args.token_begin = item / chunks * block;
        args.token_end = std::min(args.token_begin + block, tokens);
        args.row_begin = static_cast<uint32_t>(groups * (item % chunks) / chunks * rows);
        args.row_end = static_cast<uint32_t>(std::min<size_t>(groups * (item % chunks + 1) / chunks * rows, outputs));
        args.in_features = bundle_.spec.hidden;
        args.activation = activation;
        kernels_.dense(args);
    });
}

}  // namespace lavolta
