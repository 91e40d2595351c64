// From sums of products of quantized numbers to outputs.
#pragma once

#include "../activate_rows.h"

namespace lavolta {
namespace {

// Writes rows [row, row + rows) and T registers of tokens, `Step` from one to the next, from `token` on: outputs, or where the layer
// has an activation what goes into it.
template <class V, int R, int T, size_t Step>
inline __attribute__((always_inline)) void write_tile(const LinearInt8Args& a, const typename V::Reg (&acc)[R][T], size_t row, int rows,
                                                      size_t token) {
    using F = typename V::Float;
    // Copies: what is stored could be any of the arguments, for all the compiler knows.
    const size_t stride = a.stride;
    float* const y = a.y + row * stride + token;
    const float* const residual = a.residual ? a.residual + row * stride + token : nullptr;
    const float *const scales = a.scale + row, *const biases = a.bias + row;
    typename F::Reg token_scale[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) token_scale[t] = F::load(a.token_scale + token + Step * t);
    // The same operations in the same order as the reference: without an activation, the same bits.
    const auto write = [&](int count, bool with_residual) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            if (r >= count) break;
            const auto scale = F::set1(scales[r]), bias = F::set1(biases[r]);
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) {
                const size_t at = r * stride + Step * t;
                auto v = F::add(F::mul(V::to_float(acc[r][t]), F::mul(scale, token_scale[t])), bias);
                if (with_residual) v = F::add(v, F::load(residual + at));
                F::store(y + at, v);
            }
        }
    };
    const bool add = residual && a.activation == Activation::none;
    // Without a condition for every row where all rows are there.
    if (rows < R) {
        write(rows, add);
    } else if (add) {
        write(R, true);
    } else {
        write(R, false);
    }
}

}  // namespace
}  // namespace lavolta
