// Attention of new tokens over a cache, portable. Vaswani et al. 2017, equation 1; shared heads as in Ainslie et al., "GQA", 2023.
#include <cmath>

#include "../kernels.h"

namespace lavolta {

void cached_attention_reference(const CachedAttentionArgs& a) {
    float* p = a.scratch;  // (keys,)
    for (uint32_t head = 0; head < a.heads; ++head) {
        const size_t first = size_t{head} * a.head_size * a.stride;
        for (size_t query = a.query_begin; query < a.query_end; ++query) {
            const size_t keys = a.past + query + 1;
            float largest = -INFINITY;
            for (size_t key = 0; key < keys; ++key) {
                const float* k = a.keys + key / kTokenPad * a.head_size * kTokenPad + key % kTokenPad;
                float score = 0.0f;
                for (size_t f = 0; f < a.head_size; ++f) score += k[f * kTokenPad] * a.q[first + f * a.stride + query];
                p[key] = score * a.scale;
                largest = p[key] > largest ? p[key] : largest;
            }
            float sum = 0.0f;
            for (size_t key = 0; key < keys; ++key) sum += p[key] = std::exp(p[key] - largest);
            for (size_t f = 0; f < a.head_size; ++f) {
                float value = 0.0f;
                for (size_t key = 0; key < keys; ++key) value += a.values[key * a.value_stride + f] * p[key];
                a.out[first + f * a.stride + query] = value / sum;
            }
        }
    }
}

}  // namespace lavolta
