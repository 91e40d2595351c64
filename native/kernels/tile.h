// The inner loop of every product here: R rows x T registers of tokens stay in registers, a weight is broadcast, tokens stream.
#pragma once

#include "kernels.h"

namespace lavolta {
namespace {

// acc[r][t] += sum over i < count of w[r * row_step + i * step] * x[(columns ? columns[i] : i) * stride + tokens of t]
template <class V, int R, int T, bool Gather>
inline __attribute__((always_inline)) void accumulate(typename V::Reg (&acc)[R][T], const float* w, size_t row_step, size_t step,
                                                      const uint16_t* columns, size_t count, const float* x, size_t stride) {
    for (size_t i = 0; i < count; ++i) {
        const float* xi = x + (Gather ? size_t{columns[i]} : i) * stride;
        typename V::Reg tokens[T];
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) tokens[t] = V::load(xi + t * V::width);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const typename V::Reg weight = V::set1(w[r * row_step]);
#pragma GCC unroll 16
            for (int t = 0; t < T; ++t) acc[r][t] = V::fma(weight, tokens[t], acc[r][t]);
        }
        w += step;
    }
}

}  // namespace
}  // namespace lavolta
