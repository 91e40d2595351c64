// Linear layers on int8 quads, portable: what the fast kernels are compared with.
#include "../scalar.h"

namespace lavolta {

void linear_int8_reference(const LinearInt8Args& a) {
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        for (uint32_t row = 0; row < a.cell_rows && band * a.cell_rows + row < a.out_features; ++row) {
            const size_t out = size_t{band} * a.cell_rows + row;
            for (size_t token = a.token_begin; token < a.token_end; ++token) {
                int32_t sum = 0;
                for (uint32_t r = a.run_ptr[band]; r < a.run_ptr[band + 1]; ++r) {
                    for (size_t quad = a.runs[r].first; quad < size_t{a.runs[r].first} + a.runs[r].count; ++quad) {
                        const int8_t* values = a.values + (quad * a.cell_rows + row) * kQuad;
                        const uint16_t* columns = a.columns + quad * kQuad;
                        for (size_t i = 0; i < kQuad; ++i) {
                            sum += values[i] * (a.u[quantized_index(a.in_features, a.token_end, columns[i], token)] - kQuantZero);
                        }
                    }
                }
                const float y = activate(static_cast<float>(sum) * (a.scale[out] * a.token_scale[token]) + a.bias[out], a.activation);
                a.y[out * a.stride + token] = a.residual ? y + a.residual[out * a.stride + token] : y;
            }
        }
    }
}

}  // namespace lavolta
