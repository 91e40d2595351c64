// What every kernel promises: arguments, shapes and padding. Kernels are listed in table.inc and nowhere else.
//
// Activations are feature-major, (features, stride) float, tokens side by side. `stride` is at least the token count rounded
// up to 16, and a buffer ends with `kSlack` readable floats: kernels may read past the last token, and `linear`, `dense`
// and `norm` may also write the padding of a row. `token_begin` is a multiple of 16.
//
// One output element is one accumulator that adds its products in stored order, so results depend neither on the number of
// tokens nor on how the work was divided.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lavolta {

constexpr size_t kTokenPad = 16;
constexpr size_t kSlack = 64;

// Every instruction set. In a processor family the weaker ones come first: what is allowed up to one may use all before it.
#define LAVOLTA_ISAS(ISA) \
    ISA(reference)        \
    ISA(avx2)             \
    ISA(avx_vnni)         \
    ISA(avx512)           \
    ISA(avx512_vnni)      \
    ISA(neon)             \
    ISA(dotprod)          \
    ISA(i8mm)

enum class Isa : uint8_t {
#define LAVOLTA_ISA(isa) isa,
    LAVOLTA_ISAS(LAVOLTA_ISA)
#undef LAVOLTA_ISA
};
#define LAVOLTA_ISA(isa) +1
constexpr int kIsaCount = 0 LAVOLTA_ISAS(LAVOLTA_ISA);
#undef LAVOLTA_ISA

enum class Activation : uint8_t { none, gelu, relu, tanh, gelu_tanh, silu };

struct Run {
    uint32_t first;  // cell, or quad of an int8 layer
    uint32_t count;  // cells, or quads
};

// Inputs of so many bytes stay in a core's second-level cache.
constexpr size_t kCachedBytes = size_t{1} << 20;

// y = activation(W x + bias) + residual for bands [band_begin, band_end) and tokens [token_begin, token_end).
struct LinearArgs {
    const float* values;      // (cells, cell_rows)
    const uint16_t* columns;  // (cells,)
    const Run* runs;          // (n,)
    const uint32_t* run_ptr;  // (bands + 1,)
    const float* bias;        // (out_features,)
    const float* x;           // (in_features, x_stride)
    const float* residual;    // (out_features, stride) or null
    float* y;                 // (out_features, stride)
    size_t x_stride, stride;  // floats
    size_t token_begin, token_end;
    uint32_t band_begin, band_end;
    uint32_t cell_rows, out_features, in_features;
    Activation activation;
};

// Quantized activations are bytes u = q + 128 in blocks of 64 tokens, block after block. A block is feature-major,
// (features, 64), its tokens in the order of `token_slot`: an interleave of four features then leaves neighboring tokens side by
// side in a register of any width. A last block of at most 16 tokens is (features, 16), its tokens in their order. A kernel may
// read and write all of a block.
constexpr size_t kQuantBlock = 64;
constexpr size_t kNarrowBlock = 16;
constexpr size_t kQuad = 4;
constexpr size_t kMostCellRows = 16;
constexpr int kQuantZero = 128;
constexpr size_t token_slot(size_t token) { return token % 16 / 4 * 16 + token / 16 * 4 + token % 4; }
// Bytes of a row of the block that begins at token `block` of `tokens`.
constexpr size_t block_width(size_t block, size_t tokens) { return tokens - block <= kNarrowBlock ? kNarrowBlock : kQuantBlock; }
constexpr uint64_t quantized_bytes(uint64_t features, size_t tokens) {
    const size_t whole = tokens / kQuantBlock * kQuantBlock;
    return features * (whole + (tokens > whole ? block_width(whole, tokens) : 0));
}
constexpr size_t quantized_index(size_t features, size_t tokens, size_t feature, size_t token) {
    const size_t block = token / kQuantBlock * kQuantBlock, width = block_width(block, tokens);
    return block * features + feature * width + (width == kQuantBlock ? token_slot(token - block) : token - block);
}

// With m = max |x| over the features of a token: scale = m / 127 and u = round(x * (127 / m)) + 128, half to even; scale = 0
// and u = 128 where m / 127 is no normal number.
struct QuantizeArgs {
    const float* x;  // (features, stride)
    uint8_t* u;      // quantized_bytes(features, tokens)
    float* scale;    // (tokens rounded up to 16,)
    size_t stride;
    size_t token_begin, token_end;  // whole blocks of all tokens
    uint32_t features;
};

// y = activation(sums * scale * token_scale + bias) + residual, sums = W (u - 128) exactly, for the same ranges as `linear`.
struct LinearInt8Args {
    const int8_t* values;      // (quads, cell_rows, 4)
    const uint16_t* columns;   // (quads, 4)
    const Run* runs;           // (n,), quads
    const uint32_t* run_ptr;   // (bands + 1,)
    const float* scale;        // (out_features,)
    const float* bias;         // (out_features,)
    const uint8_t* u;          // quantized_bytes(in_features, tokens)
    const float* token_scale;  // (tokens rounded up to 16,)
    const float* residual;     // (out_features, stride) or null
    float* y;                  // (out_features, stride)
    size_t stride;
    size_t token_begin, token_end;  // whole blocks of all tokens
    uint32_t band_begin, band_end;
    uint32_t cell_rows, out_features, in_features;
    Activation activation;
};

// y = activation(W x + bias) for rows [row_begin, row_end); W is not packed.
struct DenseArgs {
    const float* weight;  // (out_features, in_features)
    const float* bias;    // (out_features,)
    const float* x;       // (in_features, stride)
    float* y;             // (out_features, stride)
    size_t stride;
    size_t token_begin, token_end;
    uint32_t row_begin, row_end, in_features;
    Activation activation;
};

// One head, queries [query_begin, query_end) of one sequence; q, k, v, out point at the head's first feature and the
// sequence's first token. Writes nothing outside those queries. Scores of NaN or +infinity make their query NaN, and no other one;
// a score of -infinity beside finite ones weighs nothing.
struct AttentionArgs {
    const float *q, *k, *v;  // (head_size, stride)
    float* out;              // (head_size, stride)
    float* scratch;          // attention_scratch(head_size) floats
    size_t stride;
    size_t tokens;  // of the sequence
    size_t query_begin, query_end;
    uint32_t head_size;
    float scale;
    bool causal;
};

constexpr size_t kQueryTile = 48;
// Queries that a block of keys passes before the next block comes, and the keys of a block: scratch does not grow with the sequence.
constexpr size_t kQueryGroup = 4 * kQueryTile;
constexpr size_t kKeyBlock = 128;
// Queries of one call: those that share a block of keys, or few, to be divided among threads, where there is one block.
constexpr size_t query_share(size_t keys) { return keys > kKeyBlock ? kQueryGroup : kQueryTile; }
constexpr size_t attention_scratch(size_t head_size) { return kKeyBlock * kQueryTile + kQueryGroup * (head_size + 2); }

// New tokens of one sequence that look at its cache: query heads that share one head of keys and values, queries
// [query_begin, query_end) of the new tokens; query t sees keys 0 to past + t, which are in the cache already. Keys lie in blocks
// of kTokenPad tokens, feature by feature, and values token by token, so that both stream through the registers in storage
// order when there is one query.
struct CachedAttentionArgs {
    const float* q;       // (heads * head_size, stride)
    const float* keys;    // (blocks, head_size, kTokenPad)
    const float* values;  // (tokens, value_stride), value_stride a multiple of kTokenPad, the padding finite
    float* out;           // (heads * head_size, stride)
    float* scratch;       // cached_attention_scratch(past + query_end, head_size) floats
    size_t stride, value_stride;
    size_t past;
    size_t query_begin, query_end;
    uint32_t heads, head_size;
    float scale;
};

// A tile of queries, or the weights of two heads of one.
constexpr size_t cached_attention_scratch(size_t keys, size_t head_size) {
    return attention_scratch(head_size) + 2 * (keys + kTokenPad + head_size);
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias over the features of each token; with `rms`, mean and bias are 0.
struct NormArgs {
    const float* x;       // (features, stride)
    const float* weight;  // (features,)
    const float* bias;    // (features,), null with rms
    float* y;             // (features, stride), may be x
    size_t stride;
    size_t token_begin, token_end;
    uint32_t features;
    float eps;
    bool rms;
};

// values = activation(gate) * values, elementwise: the gated feed-forward part.
struct GateArgs {
    const float* gate;  // (count,)
    float* values;      // (count,)
    size_t count;
    Activation activation;
};

// Rotary positions of one head, in place: features i and i + head_size / 2 turn by the angle whose cosine and sine are given.
struct RotateArgs {
    float* x;          // (head_size, stride)
    const float* cos;  // (head_size / 2, stride)
    const float* sin;  // (head_size / 2, stride)
    size_t stride;
    size_t token_begin, token_end;
    uint32_t head_size;
};

// One token of a session. Activations are plain vectors; kernels may neither read nor write behind them. Sums are in any order,
// so that a session's numbers agree with those of a run but for rounding; those of int8 layers are exact.

// Readable bytes behind the quantized inputs of a token: they are gathered by instructions that load four.
constexpr size_t kTokenSlack = 3;

// Units one after another in memory, some of every band, band by band.
struct Stretch {
    const uint16_t* sizes;  // (bands,), cells, or quads of an int8 layer
    uint32_t first;         // of the first band
};

// y = activation(W x + bias) + residual for bands [band_begin, band_end), stretch by stretch.
struct TokenLinearArgs {
    const float* values;       // (cells, cell_rows)
    const uint16_t* columns;   // (cells,)
    const Stretch* stretches;  // (stretch_count,), those of the level
    size_t stretch_count;
    const float* bias;         // (out_features,)
    const float* x;           // (in_features,)
    const float* residual;    // (out_features,) or null
    float* y;                 // (out_features,)
    uint32_t band_begin, band_end;
    uint32_t cell_rows, out_features;
    Activation activation;
};

// The same on quantized inputs.
struct TokenLinearInt8Args {
    const int8_t* values;      // (quads, cell_rows, 4)
    const uint16_t* columns;   // (quads, 4)
    const Stretch* stretches;  // (stretch_count,), those of the level
    size_t stretch_count;
    const float* scale;        // (out_features,)
    const float* bias;         // (out_features,)
    const int8_t* q;           // (in_features,), -127 to 127, with kTokenSlack readable bytes behind them
    const float* token_scale;  // one
    const float* residual;     // (out_features,) or null
    float* y;                  // (out_features,)
    uint32_t band_begin, band_end;
    uint32_t cell_rows, out_features;
    Activation activation;
};

// Scale and q of QuantizeArgs.
struct TokenQuantizeArgs {
    const float* x;  // (features,)
    int8_t* q;       // (features,)
    float* scale;    // one
    uint32_t features;
};

// y = activation(W x + bias) for rows [row_begin, row_end); W is not packed.
struct TokenDenseArgs {
    const float* weight;  // (out_features, in_features)
    const float* bias;    // (out_features,)
    const float* x;       // (in_features,)
    float* y;             // (out_features,)
    uint32_t row_begin, row_end, in_features;
    Activation activation;
};

// As NormArgs.
struct TokenNormArgs {
    const float* x;       // (features,)
    const float* weight;  // (features,)
    const float* bias;    // (features,), null with rms
    float* y;             // (features,), may be x
    uint32_t features;
    float eps;
    bool rms;
};

void token_quantize_reference(const TokenQuantizeArgs& a);

using LinearKernel = void(const LinearArgs&);
// Bytes of inputs that `linear` should be given at once for cells of such a height: what its walk finds in a cache again.
using LinearBytesKernel = size_t(uint32_t cell_rows);
using QuantizeKernel = void(const QuantizeArgs&);
using LinearInt8Kernel = void(const LinearInt8Args&);
using DenseKernel = void(const DenseArgs&);
using AttentionKernel = void(const AttentionArgs&);
using CachedAttentionKernel = void(const CachedAttentionArgs&);
using NormKernel = void(const NormArgs&);
using GateKernel = void(const GateArgs&);
using RotateKernel = void(const RotateArgs&);
using TokenLinearKernel = void(const TokenLinearArgs&);
using TokenLinearInt8Kernel = void(const TokenLinearInt8Args&);
using TokenQuantizeKernel = void(const TokenQuantizeArgs&);
using TokenDenseKernel = void(const TokenDenseArgs&);
using TokenNormKernel = void(const TokenNormArgs&);
// Multiply-adds of registers, nothing else; returns how many numbers were multiplied and added.
using PeakKernel = uint64_t(uint64_t rounds);

// op, type of its kernels
#define LAVOLTA_OPS(OP)           \
    OP(linear, LinearKernel)      \
    OP(linear_bytes, LinearBytesKernel) \
    OP(quantize, QuantizeKernel)  \
    OP(linear_int8, LinearInt8Kernel) \
    OP(dense, DenseKernel)        \
    OP(attention, AttentionKernel) \
    OP(cached_attention, CachedAttentionKernel) \
    OP(norm, NormKernel)          \
    OP(gate, GateKernel)          \
    OP(rotate, RotateKernel)      \
    OP(token_linear, TokenLinearKernel) \
    OP(token_linear_int8, TokenLinearInt8Kernel) \
    OP(token_quantize, TokenQuantizeKernel) \
    OP(token_dense, TokenDenseKernel) \
    OP(token_norm, TokenNormKernel)      \
    OP(peak, PeakKernel)          \
    OP(peak_int8, PeakKernel)


// The kernel of every op, and the instruction set that each came from.
struct KernelSet {
#define LAVOLTA_OP(op, type) \
    type* op;                \
    Isa op##_isa;
    LAVOLTA_OPS(LAVOLTA_OP)
#undef LAVOLTA_OP
    Isa limit;  // the best that was allowed
};

// Best kernels up to `limit` that this CPU runs: starts from the reference, overwrites what is there.
KernelSet select_kernels(Isa limit);

// This build has kernels for it, whether or not the CPU runs them.
bool isa_built(Isa isa);

const char* isa_name(Isa isa);

}  // namespace lavolta
