// Attention of one head for any register type. Scores are kept as (keys, queries): the softmax then runs down a column of
// registers, and both products are the tile of a linear layer. Keys and values of other sequences are never needed: a tile of
// keys that reaches past the sequence computes scores that nobody reads.
#pragma once

#include "../math.h"
#include "../tile.h"

namespace lavolta {
namespace {

template <class V>
constexpr int key_rows() {
    return V::registers == 32 ? 8 : 4;
}

// Rows [0, R) of out: sum over keys of v * p, times `inverse` of each query; stores `queries` of them.
template <class V, int R, int T>
inline void weigh(const AttentionArgs& a, const float* v, const float* p, size_t keys, const typename V::Reg (&inverse)[T],
                  float* out, size_t queries) {
    typename V::Reg acc[R][T];
    for (int r = 0; r < R; ++r) {
        for (int t = 0; t < T; ++t) acc[r][t] = V::zero();
    }
    accumulate<V, R, T, false>(acc, v, a.stride, 1, nullptr, keys, p, kQueryTile);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            if (t * V::width >= queries) break;
            V::store_first(out + r * a.stride + t * V::width, V::mul(acc[r][t], inverse[t]), queries - t * V::width);
        }
    }
}

// Queries [query, query + T registers).
template <class V, int T>
__attribute__((noinline)) void attend(const AttentionArgs& a, size_t query, size_t queries) {
    constexpr int R = key_rows<V>();
    float* p = a.scratch;  // (keys rounded up to R, kQueryTile)
    const size_t keys = a.causal ? query + queries : a.tokens;
    for (size_t key = 0; key < keys; key += R) {
        typename V::Reg acc[R][T];
        for (int r = 0; r < R; ++r) {
            for (int t = 0; t < T; ++t) acc[r][t] = V::zero();
        }
        accumulate<V, R, T, false>(acc, a.k + key, 1, a.stride, nullptr, a.head_size, a.q + query, a.stride);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) V::store(p + (key + r) * kQueryTile + t * V::width, acc[r][t]);
        }
    }
    // Causal: key k is hidden from the queries before it, the first k - query lanes of the tile.
    const auto hidden_lanes = [&](size_t key, int t) -> size_t {
        const size_t first = query + t * V::width;
        return a.causal && key > first ? key - first : 0;
    };
    typename V::Reg inverse[T];
    const auto scale = V::set1(a.scale);
    for (int t = 0; t < T; ++t) {
        float* column = p + t * V::width;
        auto largest = V::load(column);
        for (size_t key = 1; key < keys; ++key) {
            const size_t hidden = hidden_lanes(key, t);
            const auto score = V::load(column + key * kQueryTile);
            largest = V::max(largest, hidden ? V::replace_first(score, largest, hidden) : score);
        }
        auto sum = V::zero();
        for (size_t key = 0; key < keys; ++key) {
            const size_t hidden = hidden_lanes(key, t);
            auto e = exp_negative<V>(V::mul(V::sub(V::load(column + key * kQueryTile), largest), scale));
            if (hidden) e = V::replace_first(e, V::zero(), hidden);
            sum = V::add(sum, e);
            V::store(column + key * kQueryTile, e);
        }
        inverse[t] = V::div(V::set1(1.0f), sum);
    }
    uint32_t f = 0;
    for (; f + R <= a.head_size; f += R) {
        weigh<V, R, T>(a, a.v + f * a.stride, p, keys, inverse, a.out + f * a.stride + query, queries);
    }
    for (; f < a.head_size; ++f) {
        weigh<V, 1, T>(a, a.v + f * a.stride, p, keys, inverse, a.out + f * a.stride + query, queries);
    }
}

template <class V>
void attention(const AttentionArgs& a) {
    // One register count for all widths up to 48: narrow sequences take the narrow tile.
    constexpr size_t most = 3 * V::width;
    for (size_t query = a.query_begin; query < a.query_end;) {
        const size_t left = a.query_end - query;
        const size_t queries = left < most ? left : most;
        if (queries > 2 * V::width) {
            attend<V, 3>(a, query, queries);
        } else if (queries > V::width) {
            attend<V, 2>(a, query, queries);
        } else {
            attend<V, 1>(a, query, queries);
        }
        query += queries;
    }
}

}  // namespace
}  // namespace lavolta
