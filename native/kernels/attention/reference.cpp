// Scaled dot-product attention of one head, portable. Vaswani et al. 2017, equation 1.
#include <cmath>

#include "../kernels.h"

namespace lavolta {
namespace {

float score(const AttentionArgs& a, size_t query, size_t key) {
    float sum = 0.0f;
    for (size_t f = 0; f < a.head_size; ++f) sum += a.k[f * a.stride + key] * a.q[f * a.stride + query];
    return sum * a.scale;
}

}  // namespace

// Scores are computed twice rather than kept: room for a sequence of any length is not needed.
void attention_reference(const AttentionArgs& a) {
    float* mixed = a.scratch;  // (head_size,)
    for (size_t query = a.query_begin; query < a.query_end; ++query) {
        const size_t keys = a.causal ? query + 1 : a.tokens;
        float largest = -INFINITY;
        for (size_t key = 0; key < keys; ++key) {
            const float s = score(a, query, key);
            largest = s > largest ? s : largest;
        }
        for (size_t f = 0; f < a.head_size; ++f) mixed[f] = 0.0f;
        float sum = 0.0f;
        for (size_t key = 0; key < keys; ++key) {
            const float weight = std::exp(score(a, query, key) - largest);
            sum += weight;
            for (size_t f = 0; f < a.head_size; ++f) mixed[f] += a.v[f * a.stride + key] * weight;
        }
        for (size_t f = 0; f < a.head_size; ++f) a.out[f * a.stride + query] = mixed[f] / sum;
    }
}

}  // namespace lavolta
