// Attention of one head for any register type: keys and values are those of a run, feature by feature.
#pragma once

#include "../attention_tile.h"

namespace lavolta {
namespace {

struct WholeSequence {
    const float *k, *v;
    size_t stride;

    const float* keys(size_t key) const { return k + key; }
    size_t key_step() const { return stride; }
    const float* values(size_t f, size_t key) const { return v + f * stride + key; }
    size_t value_row_step() const { return stride; }
    size_t value_step() const { return 1; }
};

template <class V>
void attention(const AttentionArgs& a) {
    QueryTile tile{};
    tile.q = a.q;
    tile.out = a.out;
    tile.stride = a.stride;
    tile.keys = a.tokens;
    tile.head_size = a.head_size;
    tile.scale = a.scale;
    tile.causal = a.causal;
    attend_queries<V>(tile, WholeSequence{a.k, a.v, a.stride}, a.query_begin, a.query_end, 0, a.scratch);
}

}  // namespace
}  // namespace lavolta
