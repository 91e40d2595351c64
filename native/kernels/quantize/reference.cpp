// Per-token quantization of activations to bytes, portable.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../kernels.h"

namespace lavolta {

void quantize_reference(const QuantizeArgs& a) {
    for (size_t token = a.token_begin; token < a.token_end; ++token) {
        // Compared as bits, which order like magnitudes: NaN is the largest, and is not lost.
        uint32_t largest_bits = 0;
        for (size_t f = 0; f < a.features; ++f) {
            uint32_t bits;
            std::memcpy(&bits, a.x + f * a.stride + token, sizeof bits);
            largest_bits = std::max(largest_bits, bits & 0x7FFFFFFFu);
        }
        float largest;
        std::memcpy(&largest, &largest_bits, sizeof largest);
        const bool zero = largest / 127.0f < FLT_MIN;
        const float inverse = zero ? 0.0f : 127.0f / largest;
        a.scale[token] = zero ? 0.0f : largest / 127.0f;
        for (size_t f = 0; f < a.features; ++f) {
            const float q = std::fmax(std::fmin(std::nearbyint(a.x[f * a.stride + token] * inverse), 127.0f), -127.0f);
            a.u[quantized_index(a.features, a.token_end, f, token)] = static_cast<uint8_t>(static_cast<int>(q) + kQuantZero);
        }
    }
}

}  // namespace lavolta
