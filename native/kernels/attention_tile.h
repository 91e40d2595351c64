// Attention of up to three registers of queries, for any register type and wherever keys and values lie. Lanes are queries: the
// softmax runs down columns of registers, and both products are the tile of a linear layer.
//
// Keys come in blocks whose scores stay in a core's first cache. The largest score and the sum of each query are corrected when a
// later block has a larger one: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018, and, for the mixed
// values, Rabe, Staats, "Self-attention Does Not Need O(n^2) Memory", 2021. Up to kKeyBlock keys nothing is ever corrected.
//
// A score that is NaN makes its query NaN, and no other one.
#pragma once

#include "math.h"
#include "tile.h"

namespace lavolta {
namespace {

// One head, queries [0, queries) of a tile. With `causal` query t sees the keys up to position + t.
struct QueryTile {
    const float* q;  // (head_size, stride)
    float* out;      // (head_size, stride)
    size_t stride;
    size_t queries, keys;
    size_t position;
    uint32_t head_size;
    float scale;
    bool causal;
};

// Keys that a block has, and where it lies among the others.
struct KeyBlock {
    size_t begin, end;
    bool first, last;
};

template <class V>
constexpr int key_rows() {
    return V::registers == 32 ? 8 : 4;
}

// How many of the first lanes of register t do not see a key.
template <class V>
inline size_t hidden_lanes(const QueryTile& a, size_t key, int t) {
    const size_t first = a.position + t * V::width;
    return a.causal && key > first ? key - first : 0;
}

// Scores of a block, p (keys of the block, T registers), and the largest that each query sees.
template <class V, int T, class Source>
inline void score_block(const QueryTile& a, const Source& source, const KeyBlock& block, typename V::Reg (&largest)[T], float* p) {
    constexpr int R = key_rows<V>();
    // Keys before it are seen by every query.
    const size_t seen_by_all = a.causal && a.position + 1 < block.end ? a.position + 1 : block.end;
    for (size_t key = block.begin; key < block.end; key += R) {
        typename V::Reg acc[R][T];
        for (int r = 0; r < R; ++r) {
            for (int t = 0; t < T; ++t) acc[r][t] = V::zero();
        }
        accumulate<V, R, T, false>(acc, source.keys(key), 1, source.key_step(), nullptr, a.head_size, a.q, a.stride);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) V::store(p + ((key - block.begin + r) * T + t) * V::width, acc[r][t]);
        }
        if (key + R <= seen_by_all) {
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
                for (int t = 0; t < T; ++t) largest[t] = V::max(largest[t], acc[r][t]);
            }
            continue;
        }
        // Rows behind the last key are computed from anything and never looked at.
        for (size_t row = key; row < key + R && row < block.end; ++row) {
            for (int t = 0; t < T; ++t) {
                const auto score = V::load(p + ((row - block.begin) * T + t) * V::width);
                largest[t] = V::max(largest[t], V::replace_first(score, largest[t], hidden_lanes<V>(a, row, t)));
            }
        }
    }
}

// Scores to weights in place; adds them to `sum`. `unit` turns a score into a power of two.
template <class V, int T>
inline void soften_block(const QueryTile& a, const KeyBlock& block, const typename V::Reg (&largest)[T], typename V::Reg unit,
                         typename V::Reg (&sum)[T], float* p) {
    const size_t seen_by_all = a.causal && a.position + 1 < block.end ? a.position + 1 : block.end;
    size_t key = block.begin;
    for (; key < seen_by_all; ++key, p += T * V::width) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const auto weight = exp2_negative<V>(V::mul(V::sub(V::load(p + t * V::width), largest[t]), unit));
            sum[t] = V::add(sum[t], weight);
            V::store(p + t * V::width, weight);
        }
    }
    for (; key < block.end; ++key, p += T * V::width) {
        for (int t = 0; t < T; ++t) {
            const auto weight = V::replace_first(exp2_negative<V>(V::mul(V::sub(V::load(p + t * V::width), largest[t]), unit)),
                                                 V::zero(), hidden_lanes<V>(a, key, t));
            sum[t] = V::add(sum[t], weight);
            V::store(p + t * V::width, weight);
        }
    }
}

// Features [f, f + R) of the mixed values: those of earlier blocks times `keep`, and the sum over keys of value * weight. What the
// last block leaves is multiplied by `inverse` and written for the queries there are.
template <class V, int R, int T, class Source>
inline void mix_block(const QueryTile& a, const Source& source, const KeyBlock& block, uint32_t f, const float* p, float* mixed,
                      const typename V::Reg (&keep)[T], const typename V::Reg (&inverse)[T]) {
    float* rows = mixed + f * T * V::width;
    typename V::Reg acc[R][T];
    for (int r = 0; r < R; ++r) {
        for (int t = 0; t < T; ++t) acc[r][t] = block.first ? V::zero() : V::mul(V::load(rows + (r * T + t) * V::width), keep[t]);
    }
    accumulate<V, R, T, false>(acc, source.values(f, block.begin), source.value_row_step(), source.value_step(), nullptr,
                               block.end - block.begin, p, T * V::width);
    if (!block.last) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) V::store(rows + (r * T + t) * V::width, acc[r][t]);
        }
        return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            if (t * V::width >= a.queries) break;
            V::store_first(a.out + (f + r) * a.stride + t * V::width, V::mul(acc[r][t], inverse[t]), a.queries - t * V::width);
        }
    }
}

// One block of keys. What later blocks need of this one is behind the weights of the block in `scratch`, for the tile that is at
// `offset` queries of a group.
template <class V, int T, class Source>
__attribute__((noinline)) void attend_block(const QueryTile& a, const Source& source, const KeyBlock& block, float* scratch,
                                            size_t offset) {
    constexpr int R = key_rows<V>();
    constexpr size_t columns = T * V::width;
    float* p = scratch;                                                             // (keys of the block, columns)
    float* state = scratch + kKeyBlock * kQueryTile + offset * (a.head_size + 2);  // (2, columns)
    float* mixed = state + 2 * columns;                                             // (head_size, columns)
    // exp(x) = 2^(x log2 e).
    const auto unit = V::set1(a.scale * 1.44269504088896341f);
    typename V::Reg largest[T], sum[T], keep[T], inverse[T];
    for (int t = 0; t < T; ++t) {
        largest[t] = block.first ? V::set1(-__builtin_inff()) : V::load(state + t * V::width);
        sum[t] = block.first ? V::zero() : V::load(state + columns + t * V::width);
        keep[t] = largest[t];
        inverse[t] = V::set1(1.0f);
    }
    score_block<V, T>(a, source, block, largest, p);
    if (!block.first) {
        for (int t = 0; t < T; ++t) {
            keep[t] = exp2_negative<V>(V::mul(V::sub(keep[t], largest[t]), unit));
            sum[t] = V::mul(sum[t], keep[t]);
        }
    }
    soften_block<V, T>(a, block, largest, unit, sum, p);
    for (int t = 0; t < T; ++t) {
        if (block.last) {
            inverse[t] = V::div(V::set1(1.0f), sum[t]);
        } else {
            V::store(state + t * V::width, largest[t]);
            V::store(state + columns + t * V::width, sum[t]);
        }
    }
    uint32_t f = 0;
    for (; f + R <= a.head_size; f += R) mix_block<V, R, T>(a, source, block, f, p, mixed, keep, inverse);
    for (; f < a.head_size; ++f) mix_block<V, 1, T>(a, source, block, f, p, mixed, keep, inverse);
}

// Queries [query_begin, query_end); `all` says what holds for every tile, and query 0 is at `position` of the keys. A block of keys
// passes all tiles of a group before the next block comes: long sequences do not fit a core's caches.
template <class V, class Source>
void attend_queries(const QueryTile& all, const Source& source, size_t query_begin, size_t query_end, size_t position,
                    float* scratch) {
    constexpr size_t most = 3;  // registers
    for (size_t group = query_begin; group < query_end; group += kQueryGroup) {
        const size_t group_end = query_end - group < kQueryGroup ? query_end : group + kQueryGroup;
        const size_t group_keys = all.causal ? position + group_end : all.keys;
        // Tiles of about equal width: one register alone has too few sums to hide the latency of a multiply-add.
        const size_t registers = (group_end - group + V::width - 1) / V::width, tiles = (registers + most - 1) / most;
        for (size_t begin = 0; begin < group_keys; begin += kKeyBlock) {
            for (size_t i = 0; i < tiles; ++i) {
                const size_t query = group + registers * i / tiles * V::width;
                const size_t next = group + registers * (i + 1) / tiles * V::width;
                QueryTile tile = all;
                tile.queries = (next < group_end ? next : group_end) - query;
                tile.position = position + query;
                if (tile.causal) tile.keys = tile.position + tile.queries;
                if (tile.keys <= begin) continue;
                tile.q += query;
                tile.out += query;
                const bool last = tile.keys - begin <= kKeyBlock;
                const KeyBlock block{begin, last ? tile.keys : begin + kKeyBlock, begin == 0, last};
                // Few queries take the narrow tile.
                if (tile.queries > 2 * V::width) {
                    attend_block<V, 3>(tile, source, block, scratch, query - group);
                } else if (tile.queries > V::width) {
                    attend_block<V, 2>(tile, source, block, scratch, query - group);
                } else {
                    attend_block<V, 1>(tile, source, block, scratch, query - group);
                }
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
