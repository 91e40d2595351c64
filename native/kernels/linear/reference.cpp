// Sparse and dense linear layers, portable: what the fast kernels are compared with.
#include "../scalar.h"

namespace lavolta {

void linear_reference(const LinearArgs& a) {
    for (uint32_t band = a.band_begin; band < a.band_end; ++band) {
        for (uint32_t row = 0; row < a.cell_rows && band * a.cell_rows + row < a.out_features; ++row) {
            const size_t out = size_t{band} * a.cell_rows + row;
            for (size_t token = a.token_begin; token < a.token_end; ++token) {
                float sum = a.bias[out];
                for (uint32_t r = a.run_ptr[band]; r < a.run_ptr[band + 1]; ++r) {
                    for (size_t cell = a.runs[r].first; cell < size_t{a.runs[r].first} + a.runs[r].count; ++cell) {
                        sum += a.values[cell * a.cell_rows + row] * a.x[a.columns[cell] * a.x_stride + token];
                    }
                }
                sum = activate(sum, a.activation);
                a.y[out * a.stride + token] = a.residual ? sum + a.residual[out * a.stride + token] : sum;
            }
        }
    }
}

void dense_reference(const DenseArgs& a) {
    for (size_t row = a.row_begin; row < a.row_end; ++row) {
        for (size_t token = a.token_begin; token < a.token_end; ++token) {
            float sum = a.bias[row];
            for (size_t column = 0; column < a.in_features; ++column) {
                sum += a.weight[row * a.in_features + column] * a.x[column * a.stride + token];
            }
            a.y[row * a.stride + token] = activate(sum, a.activation);
        }
    }
}

size_t linear_bytes_reference(uint32_t) { return kCachedBytes; }

}  // namespace lavolta
