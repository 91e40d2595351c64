// Attention of new tokens over a cache, for any register type. Many queries take the tile of a linear layer, lanes being
// queries, as in attention/simd.h. One query would fill one lane of it: there lanes are keys, then features, and every number
// of the cache is loaded once for all the heads that share it, in the order in which it lies.
#pragma once

#include "../math.h"
#include "../tile.h"

namespace lavolta {
namespace {

template <class V>
constexpr int tile_rows() {
    return V::registers == 32 ? 8 : 4;
}

// Rows [f, f + R) of the result: sum over keys of value * p, times `inverse` of each query.
template <class V, int R, int T>
inline void weigh_values(const CachedAttentionArgs& a, uint32_t f, const float* p, size_t keys,
                         const typename V::Reg (&inverse)[T], float* out, size_t queries) {
    typename V::Reg acc[R][T];
    for (int r = 0; r < R; ++r) {
        for (int t = 0; t < T; ++t) acc[r][t] = V::zero();
    }
    accumulate<V, R, T, false>(acc, a.values + f, 1, a.value_stride, nullptr, keys, p, kQueryTile);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        // The padding of a value is no feature.
        if (f + r >= a.head_size) break;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            if (t * V::width >= queries) break;
            V::store_first(out + (f + r) * a.stride + t * V::width, V::mul(acc[r][t], inverse[t]), queries - t * V::width);
        }
    }
}

// Queries [query, query + T registers) of one head.
template <class V, int T>
__attribute__((noinline)) void attend_tile(const CachedAttentionArgs& a, const float* q, float* out, size_t query, size_t queries) {
    constexpr int R = tile_rows<V>();
    float* p = a.scratch;  // (keys rounded up to R, kQueryTile)
    const size_t keys = a.past + query + queries;
    for (size_t key = 0; key < keys; key += R) {
        typename V::Reg acc[R][T];
        for (int r = 0; r < R; ++r) {
            for (int t = 0; t < T; ++t) acc[r][t] = V::zero();
        }
        const float* block = a.keys + key / kTokenPad * a.head_size * kTokenPad + key % kTokenPad;
        accumulate<V, R, T, false>(acc, block, 1, kTokenPad, nullptr, a.head_size, q + query, a.stride);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) V::store(p + (key + r) * kQueryTile + t * V::width, acc[r][t]);
        }
    }
    // Key k is hidden from the queries before it: the first k - past - query lanes of the tile.
    const auto hidden_lanes = [&](size_t key, int t) -> size_t {
        const size_t first = a.past + query + t * V::width;
        return key > first ? key - first : 0;
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
    for (uint32_t f = 0; f < a.head_size; f += R) weigh_values<V, R, T>(a, f, p, keys, inverse, out + query, queries);
}

// Scores of H heads for all keys, times scale: p[h * row + key]. Partial sums hide the latency of a multiply-add.
template <class V, int H>
inline void score_keys(const CachedAttentionArgs& a, const float* q, size_t keys, float* p, size_t row) {
    constexpr int partial = H == 1 ? 4 : 2;
    const auto scale = V::set1(a.scale);
    for (size_t key = 0; key < keys; key += V::width) {
        const float* block = a.keys + key / kTokenPad * a.head_size * kTokenPad + key % kTokenPad;
        typename V::Reg acc[H][partial];
        for (int h = 0; h < H; ++h) {
            for (int i = 0; i < partial; ++i) acc[h][i] = V::zero();
        }
        uint32_t f = 0;
        for (; f + partial <= a.head_size; f += partial) {
#pragma GCC unroll 4
            for (int i = 0; i < partial; ++i) {
                const auto k = V::load(block + (f + i) * kTokenPad);
#pragma GCC unroll 4
                for (int h = 0; h < H; ++h) acc[h][i] = V::fma(V::set1(q[h * a.head_size + f + i]), k, acc[h][i]);
            }
        }
        for (; f < a.head_size; ++f) {
            const auto k = V::load(block + f * kTokenPad);
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) acc[h][0] = V::fma(V::set1(q[h * a.head_size + f]), k, acc[h][0]);
        }
        for (int h = 0; h < H; ++h) {
            for (int i = 1; i < partial; ++i) acc[h][0] = V::add(acc[h][0], acc[h][i]);
            V::store(p + h * row + key, V::mul(acc[h][0], scale));
        }
    }
}

// exp(p - largest) in place, 0 behind the keys up to a whole register; returns one over their sum.
template <class V>
inline float soften(float* p, size_t keys) {
    size_t end = keys;
    for (; end % V::width; ++end) p[end] = -__builtin_inff();
    auto largest = V::load(p);
    for (size_t key = V::width; key < end; key += V::width) largest = V::max(largest, V::load(p + key));
    float lanes[V::width];
    V::store(lanes, largest);
    float most = lanes[0];
    for (size_t i = 1; i < V::width; ++i) most = lanes[i] > most ? lanes[i] : most;
    auto sum = V::zero();
    for (size_t key = 0; key < end; key += V::width) {
        const auto e = exp_negative<V>(V::sub(V::load(p + key), V::set1(most)));
        sum = V::add(sum, e);
        V::store(p + key, e);
    }
    V::store(lanes, sum);
    float total = 0.0f;
    for (size_t i = 0; i < V::width; ++i) total += lanes[i];
    return 1.0f / total;
}

// Features [f, f + C registers) of H heads: sum over keys of p * value, times inverse[h].
template <class V, int H, int C>
inline void mix_values(const CachedAttentionArgs& a, uint32_t f, const float* p, size_t row, size_t keys, const float* inverse,
                       float* out) {
    typename V::Reg acc[2][H][C];
    for (int i = 0; i < 2; ++i) {
        for (int h = 0; h < H; ++h) {
            for (int c = 0; c < C; ++c) acc[i][h][c] = V::zero();
        }
    }
    const auto add = [&](int i, size_t key) {
        const float* value = a.values + key * a.value_stride + f;
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            const auto v = V::load(value + c * V::width);
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) acc[i][h][c] = V::fma(V::set1(p[h * row + key]), v, acc[i][h][c]);
        }
    };
    size_t key = 0;
    for (; key + 2 <= keys; key += 2) {
        add(0, key);
        add(1, key + 1);
    }
    if (key < keys) add(0, key);
    for (int h = 0; h < H; ++h) {
        for (int c = 0; c < C; ++c) {
            float lanes[V::width];
            V::store(lanes, V::mul(V::add(acc[0][h][c], acc[1][h][c]), V::set1(inverse[h])));
            for (size_t lane = 0; lane < V::width && f + c * V::width + lane < a.head_size; ++lane) {
                out[(h * a.head_size + f + c * V::width + lane) * a.stride] = lanes[lane];
            }
        }
    }
}

// One query of H heads.
template <class V, int H>
__attribute__((noinline)) void attend_one(const CachedAttentionArgs& a, const float* q, float* out, size_t query) {
    const size_t keys = a.past + query + 1;
    const size_t row = (keys + kTokenPad - 1) / kTokenPad * kTokenPad;
    float* p = a.scratch;                // (H, row)
    float* packed = a.scratch + H * row;  // (H, head_size)
    for (size_t f = 0; f < size_t{H} * a.head_size; ++f) packed[f] = q[f * a.stride + query];
    score_keys<V, H>(a, packed, keys, p, row);
    float inverse[H];
    for (int h = 0; h < H; ++h) inverse[h] = soften<V>(p + h * row, keys);
    // Two partial sums of H heads and C registers leave room for the values.
    constexpr int C = H == 1 ? 4 : 2;
    uint32_t f = 0;
    for (; f + (C - 1) * V::width < a.head_size; f += C * V::width) mix_values<V, H, C>(a, f, p, row, keys, inverse, out + query);
    for (; f < a.head_size; f += V::width) mix_values<V, H, 1>(a, f, p, row, keys, inverse, out + query);
}

template <class V>
void cached_attention(const CachedAttentionArgs& a) {
    constexpr size_t most = 3 * V::width;
    const size_t head_floats = size_t{a.head_size} * a.stride;
    if (a.query_end - a.query_begin == 1) {
        uint32_t head = 0;
        for (; head + 2 <= a.heads; head += 2) attend_one<V, 2>(a, a.q + head * head_floats, a.out + head * head_floats, a.query_begin);
        if (head < a.heads) attend_one<V, 1>(a, a.q + head * head_floats, a.out + head * head_floats, a.query_begin);
        return;
    }
    for (uint32_t head = 0; head < a.heads; ++head) {
        const float* q = a.q + head * head_floats;
        float* out = a.out + head * head_floats;
        for (size_t query = a.query_begin; query < a.query_end;) {
            const size_t left = a.query_end - query;
            const size_t queries = left < most ? left : most;
            if (queries > 2 * V::width) {
                attend_tile<V, 3>(a, q, out, query, queries);
            } else if (queries > V::width) {
                attend_tile<V, 2>(a, q, out, query, queries);
            } else {
                attend_tile<V, 1>(a, q, out, query, queries);
            }
            query += queries;
        }
    }
}

}  // namespace
}  // namespace lavolta
