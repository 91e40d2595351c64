// One token of a session, portable: activations are plain vectors.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "../scalar.h"

namespace lavolta {

namespace {

// body(first unit, units) for every stretch, of one band.
template <class Args, class Body>
void for_stretches(const Args& a, uint32_t band, const Body& body) {
    for (size_t s = 0; s < a.stretch_count; ++s) {
        const Stretch& stretch = a.stretches[s];
        size_t unit = stretch.first;
        for (uint32_t before = 0; before < band; ++before) unit += stretch.sizes[before];
        body(unit, size_t{stretch.sizes[band]});
    }
}

}  // namespace

void token_linear_reference(const TokenLinearArgs& a) {
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        for (uint32_t row = 0; row < a.cell_rows && size_t{band} * a.cell_rows + row < a.out_features; ++row) {
            const size_t out = size_t{band} * a.cell_rows + row;
            float sum = a.bias[out];
            for_stretches(a, band, [&](size_t first, size_t count) {
                for (size_t cell = first; cell < first + count; ++cell) sum += a.values[cell * a.cell_rows + row] * a.x[a.columns[cell]];
            });
            sum = activate(sum, a.activation);
            a.y[out] = a.residual ? sum + a.residual[out] : sum;
        }
    }
}

void token_linear_int8_reference(const TokenLinearInt8Args& a) {
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        for (uint32_t row = 0; row < a.cell_rows && size_t{band} * a.cell_rows + row < a.out_features; ++row) {
            const size_t out = size_t{band} * a.cell_rows + row;
            int32_t sum = 0;
            for_stretches(a, band, [&](size_t first, size_t count) {
                for (size_t quad = first; quad < first + count; ++quad) {
                    const int8_t* values = a.values + (quad * a.cell_rows + row) * kQuad;
                    for (size_t i = 0; i < kQuad; ++i) sum += values[i] * a.q[a.columns[quad * kQuad + i]];
                }
            });
            const float y = activate(static_cast<float>(sum) * (a.scale[out] * *a.token_scale) + a.bias[out], a.activation);
            a.y[out] = a.residual ? y + a.residual[out] : y;
        }
    }
}

void token_quantize_reference(const TokenQuantizeArgs& a) {
    // Compared as bits, which order like magnitudes: NaN is the largest, and is not lost.
    uint32_t largest_bits = 0;
    for (size_t f = 0; f < a.features; ++f) {
        uint32_t bits;
        std::memcpy(&bits, a.x + f, sizeof bits);
        largest_bits = std::max(largest_bits, bits & 0x7FFFFFFFu);
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    const bool zero = largest / 127.0f < FLT_MIN;
    const float inverse = zero ? 0.0f : 127.0f / largest;
    *a.scale = zero ? 0.0f : largest / 127.0f;
    for (size_t f = 0; f < a.features; ++f) {
        a.q[f] = static_cast<int8_t>(std::fmax(std::fmin(std::nearbyint(a.x[f] * inverse), 127.0f), -127.0f));
    }
}

void token_dense_reference(const TokenDenseArgs& a) {
    for (size_t row = a.row_begin; row < a.row_end; ++row) {
        float sum = a.bias[row];
        for (size_t column = 0; column < a.in_features; ++column) sum += a.weight[row * a.in_features + column] * a.x[column];
        a.y[row] = activate(sum, a.activation);
    }
}

void token_norm_reference(const TokenNormArgs& a) {
    float mean = 0.0f;
    for (size_t f = 0; f < a.features && !a.rms; ++f) mean += a.x[f];
    mean /= static_cast<float>(a.features);
    float variance = 0.0f;
    for (size_t f = 0; f < a.features; ++f) variance += (a.x[f] - mean) * (a.x[f] - mean);
    const float scale = 1.0f / std::sqrt(variance / static_cast<float>(a.features) + a.eps);
    for (size_t f = 0; f < a.features; ++f) {
        const float scaled = (a.x[f] - mean) * scale * a.weight[f];
        a.y[f] = a.rms ? scaled : scaled + a.bias[f];
    }
}

}  // namespace lavolta
