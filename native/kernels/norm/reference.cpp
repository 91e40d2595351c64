// Norms over features, portable. Ba, Kiros, Hinton, "Layer Normalization", 2016, with the biased variance; Zhang, Sennrich,
// "Root Mean Square Layer Normalization", 2019.
#include <cmath>

#include "../kernels.h"

namespace lavolta {

void norm_reference(const NormArgs& a) {
    for (size_t token = a.token_begin; token < a.token_end; ++token) {
        float mean = 0.0f;
        for (size_t f = 0; f < a.features && !a.rms; ++f) mean += a.x[f * a.stride + token];
        mean /= static_cast<float>(a.features);
        float variance = 0.0f;
        for (size_t f = 0; f < a.features; ++f) {
            const float d = a.x[f * a.stride + token] - mean;
            variance += d * d;
        }
        const float scale = 1.0f / std::sqrt(variance / static_cast<float>(a.features) + a.eps);
        for (size_t f = 0; f < a.features; ++f) {
            const float scaled = (a.x[f * a.stride + token] - mean) * scale * a.weight[f];
            a.y[f * a.stride + token] = a.rms ? scaled : scaled + a.bias[f];
        }
    }
}

}  // namespace lavolta
