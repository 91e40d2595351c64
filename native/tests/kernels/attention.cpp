// Attention, of whole sequences and over a cache.
#include <algorithm>

#include "check.h"

namespace lavolta {
namespace {

// |q|, |k|, |v| < 1: scores err by (head_size + 4) eps |q||k| scale, weights by the exponential of twice that and the rounding
// of their sum; kernel and reference each do.
double attention_bound(uint32_t head_size, float scale, size_t keys) {
    const double score = (head_size + 4) * double{kEps} * scale * head_size;
    return 2 * (2 * score + (2 * static_cast<double>(keys) + 8) * kEps);
}

}  // namespace

void test_attention(Isa isa, AttentionKernel* kernel, AttentionKernel* reference) {
    for (const bool causal : {false, true}) {
        for (const uint32_t head_size : {1u, 4u, 5u, 32u}) {
            // Around a register, a tile of queries, one and two blocks of keys.
            for (const size_t tokens : {1, 2, 3, 4, 5, 11, 12, 13, 16, 17, 33, 47, 48, 49, 61, 127, 128, 129, 131, 257}) {
                Numbers numbers(head_size * 1000 + tokens + causal);
                // The sequence lies between others, which are NaN and must neither be read into the result nor written.
                const size_t before = 5, all = before + tokens + 11, stride = stride_of(all);
                std::vector<float> q(head_size * stride + kSlack, kNan), k(q), v(q), y(q.size(), kKeep), expected(y);
                for (auto* values : {&q, &k, &v}) {
                    for (size_t f = 0; f < head_size; ++f) {
                        for (size_t t = 0; t < tokens; ++t) (*values)[f * stride + before + t] = numbers.number();
                    }
                }
                std::vector<float> scratch(attention_scratch(head_size), kNan);
                AttentionArgs args{};
                args.q = q.data() + before;
                args.k = k.data() + before;
                args.v = v.data() + before;
                args.scratch = scratch.data();
                args.stride = stride;
                args.tokens = tokens;
                args.head_size = head_size;
                args.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
                args.causal = causal;
                for (auto* out : {&expected, &y}) {
                    args.out = out->data() + before;
                    for (size_t query = 0; query < tokens; query += query_share(tokens)) {
                        args.query_begin = query;
                        args.query_end = std::min(query + query_share(tokens), tokens);
                        (out == &y ? kernel : reference)(args);
                    }
                }
                const double bound = attention_bound(head_size, args.scale, tokens);
                for (size_t f = 0; f < head_size; ++f) {
                    for (size_t t = 0; t < all; ++t) {
                        const size_t at = f * stride + t;
                        expect_near(y[at], expected[at], bound, place("attention", isa, head_size, tokens, f, t));
                    }
                }
            }
        }
    }
}

void test_cached_attention(Isa isa, CachedAttentionKernel* kernel, CachedAttentionKernel* reference) {
    for (const uint32_t heads : {1u, 2u, 3u}) {
        for (const uint32_t head_size : {1u, 4u, 5u, 20u}) {
            for (const size_t past : {0, 1, 15, 16, 40, 127, 230}) {
                for (const size_t tokens : {1, 2, 5, 13, 49}) {
                    Numbers numbers(heads * 10000 + head_size * 1000 + past * 50 + tokens);
                    const size_t keys = past + tokens;
                    CachedAttentionArgs args{};
                    args.value_stride = stride_of(head_size);
                    // What is behind the last key may be anything; what is behind the features of a value is finite.
                    std::vector<float> cached(stride_of(keys) * head_size, kNan), values(keys * args.value_stride, 0.0f);
                    for (size_t key = 0; key < keys; ++key) {
                        for (size_t f = 0; f < head_size; ++f) {
                            cached[(key / kTokenPad * head_size + f) * kTokenPad + key % kTokenPad] = numbers.number();
                            values[key * args.value_stride + f] = numbers.number();
                        }
                    }
                    const std::vector<float> q = activations(numbers, heads * head_size, tokens);
                    std::vector<float> y(q.size(), kNan), expected(y), scratch(cached_attention_scratch(keys, head_size), kNan);
                    args.q = q.data();
                    args.keys = cached.data();
                    args.values = values.data();
                    args.scratch = scratch.data();
                    args.stride = stride_of(tokens);
                    args.past = past;
                    args.heads = heads;
                    args.head_size = head_size;
                    args.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
                    for (auto* out : {&expected, &y}) {
                        args.out = out->data();
                        for (size_t query = 0; query < tokens; query += query_share(keys)) {
                            args.query_begin = query;
                            args.query_end = std::min(query + query_share(keys), tokens);
                            (out == &y ? kernel : reference)(args);
                        }
                    }
                    const double bound = attention_bound(head_size, args.scale, keys);
                    for (size_t f = 0; f < heads * head_size; ++f) {
                        for (size_t t = 0; t < tokens; ++t) {
                            const size_t at = f * args.stride + t;
                            expect_near(y[at], expected[at], bound, place("cached_attention", isa, past, tokens, f, t));
                        }
                    }
                }
            }
        }
    }
}

}  // namespace lavolta
