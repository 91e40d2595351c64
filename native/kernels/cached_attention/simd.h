// Attention of new tokens over a cache, for any register type. Many queries take tiles whose lanes are queries. One query would
// fill one lane of them: there lanes are keys, then features, and every number of the cache is loaded once for two of the heads
// that share it, in the order in which it lies.
#pragma once

#include "../ahead.h"
#include "../attention_tile.h"

namespace lavolta {
namespace {

struct Cache {
    const float *blocks, *rows;
    size_t head_size, stride;

    const float* keys(size_t key) const { return blocks + key / kTokenPad * head_size * kTokenPad + key % kTokenPad; }
    size_t key_step() const { return kTokenPad; }
    const float* values(size_t f, size_t key) const { return rows + key * stride + f; }
    size_t value_row_step() const { return 1; }
    size_t value_step() const { return stride; }
};

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
                fetch_ahead<sizeof(float)>(block + (f + i) * kTokenPad);
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

// Features [f, f + C registers) of H heads: sum over keys of p * value, times inverse[h]. Eight sums hide the latency of a
// multiply-add; few registers take two keys in turn.
template <class V, int H, int C>
inline void mix_values(const CachedAttentionArgs& a, uint32_t f, const float* p, size_t row, size_t keys, const float* inverse,
                       float* out) {
    constexpr int partial = H * C >= 8 ? 1 : 2;
    typename V::Reg acc[partial][H][C];
    for (int i = 0; i < partial; ++i) {
        for (int h = 0; h < H; ++h) {
            for (int c = 0; c < C; ++c) acc[i][h][c] = V::zero();
        }
    }
    const auto add = [&](int i, size_t key) {
        const float* value = a.values + key * a.value_stride + f;
        fetch_ahead<C * V::width * sizeof(float)>(value);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            const auto v = V::load(value + c * V::width);
#pragma GCC unroll 4
            for (int h = 0; h < H; ++h) acc[i][h][c] = V::fma(V::set1(p[h * row + key]), v, acc[i][h][c]);
        }
    };
    size_t key = 0;
    for (; key + partial <= keys; key += partial) {
        for (int i = 0; i < partial; ++i) add(i, key + i);
    }
    if (key < keys) add(0, key);
    for (int h = 0; h < H; ++h) {
        for (int c = 0; c < C; ++c) {
            for (int i = 1; i < partial; ++i) acc[0][h][c] = V::add(acc[0][h][c], acc[i][h][c]);
            float lanes[V::width];
            V::store(lanes, V::mul(acc[0][h][c], V::set1(inverse[h])));
            for (size_t lane = 0; lane < V::width && f + c * V::width + lane < a.head_size; ++lane) {
                out[(h * a.head_size + f + c * V::width + lane) * a.stride] = lanes[lane];
            }
        }
    }
}

// The features from `f` on, as many registers at once as are there, so that a row of values is read in one go.
template <class V, int H, int C>
inline void mix_features(const CachedAttentionArgs& a, uint32_t f, const float* p, size_t row, size_t keys, const float* inverse,
                         float* out) {
    for (; f + (C - 1) * V::width < a.head_size; f += C * V::width) mix_values<V, H, C>(a, f, p, row, keys, inverse, out);
    if constexpr (C > 1) mix_features<V, H, C / 2>(a, f, p, row, keys, inverse, out);
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
    mix_features<V, H, 8 / H>(a, 0, p, row, keys, inverse, out + query);
}

template <class V>
void cached_attention(const CachedAttentionArgs& a) {
    const size_t head_floats = size_t{a.head_size} * a.stride;
    if (a.query_end - a.query_begin == 1) {
        uint32_t head = 0;
        for (; head + 2 <= a.heads; head += 2) attend_one<V, 2>(a, a.q + head * head_floats, a.out + head * head_floats, a.query_begin);
        if (head < a.heads) attend_one<V, 1>(a, a.q + head * head_floats, a.out + head * head_floats, a.query_begin);
        return;
    }
    QueryTile tile{};
    tile.stride = a.stride;
    tile.head_size = a.head_size;
    tile.scale = a.scale;
    tile.causal = true;
    for (uint32_t head = 0; head < a.heads; ++head) {
        tile.q = a.q + head * head_floats;
        tile.out = a.out + head * head_floats;
        attend_queries<V>(tile, Cache{a.keys, a.values, a.head_size, a.value_stride}, a.query_begin, a.query_end, a.past,
                          a.scratch);
    }
}

}  // namespace
}  // namespace lavolta
