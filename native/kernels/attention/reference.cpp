// Scaled dot-product attention of one head, portable. Vaswani et al. 2017, equation 1.
#include <cmath>

#include "../kernels.h"

namespace lavolta {

void attention_reference(const AttentionArgs& a) {
    float* p = a.scratch;  // (tokens,)
    for (size_t query = a.query_begin; query < a.query_end; ++query) {
        const size_t keys = a.causal ? query + 1 : a.tokens;
        float largest = -INFINITY;
        for (size_t key = 0; key < keys; ++key) {
            float score = 0.0f;
            for (size_t f = 0; f < a.head_size; ++f) score += a.k[f * a.stride + key] * a.q[f * a.stride + query];
            p[key] = score * a.scale;
            largest = p[key] > largest ? p[key] : largest;
        }
        float sum = 0.0f;
        for (size_t key = 0; key < keys; ++key) sum += p[key] = std::exp(p[key] - largest);
        for (size_t f = 0; f < a.head_size; ++f) {
            float value = 0.0f;
            for (size_t key = 0; key < keys; ++key) value += a.v[f * a.stride + key] * p[key];
            a.out[f * a.stride + query] = value / sum;
        }
    }
}

}  // namespace lavolta
