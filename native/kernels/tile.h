// The inner loop of every product here: R rows x T registers of tokens stay in registers, a weight is broadcast, tokens stream.
#pragma once

#include "kernels.h"

namespace lavolta {
namespace {

// Weights are fetched this far ahead of their use: the hardware's own prefetchers are busy with the tokens' scattered rows. What
// follows a run of cells is what the next band has of the same group, so that nothing is fetched in vain.
constexpr size_t kAheadBytes = 1024;

// acc[r][t] += w[r * row_step] * x[tokens of t]
template <class V, int R, int T>
inline __attribute__((always_inline)) void add_column(typename V::Reg (&acc)[R][T], const float* w, size_t row_step, const char* at) {
    // One address a column: left to itself the compiler keeps one for every register of tokens, more than it has room for.
    __asm__("" : "+r"(at));
    const float* x = reinterpret_cast<const float*>(at);
    typename V::Reg tokens[T];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) tokens[t] = V::load(x + t * V::width);
    if constexpr (V::multiplies_lanes && R % 4 == 0) {
        if (row_step == 1) return V::template add_rows<R, T>(acc, w, tokens);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        const typename V::Reg weight = V::set1(w[r * row_step]);
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = V::fma(weight, tokens[t], acc[r][t]);
    }
}

// acc[r][t] += sum over i < count of w[r * row_step + i * step] * x[(columns ? columns[i] : i) * stride + tokens of t]
template <class V, int R, int T, bool Gather>
inline __attribute__((always_inline)) void accumulate(typename V::Reg (&acc)[R][T], const float* w, size_t row_step, size_t step,
                                                      const uint16_t* columns, size_t count, const float* x, size_t stride) {
    const char* base = reinterpret_cast<const char*>(x);
    const size_t stride_bytes = stride * sizeof(float);
    for (size_t i = 0; i < count; ++i, w += step) {
        if (Gather) __builtin_prefetch(reinterpret_cast<const char*>(w) + kAheadBytes);
        add_column<V, R, T>(acc, w, row_step, base + (Gather ? size_t{columns[i]} : i) * stride_bytes);
    }
}

// The same over cells of R rows whose activations are in the first-level cache, four columns a turn: where tokens come from farther
// away, long turns gain nothing.
template <class V, int R, int T>
inline __attribute__((always_inline)) void accumulate_near(typename V::Reg (&acc)[R][T], const float* w, size_t step,
                                                           const uint16_t* columns, size_t count, const float* x, size_t stride) {
    const char* base = reinterpret_cast<const char*>(x);
    const size_t stride_bytes = stride * sizeof(float);
#pragma GCC unroll 4
    for (size_t i = 0; i < count; ++i, w += step) {
        __builtin_prefetch(reinterpret_cast<const char*>(w) + kAheadBytes);
        add_column<V, R, T>(acc, w, 1, base + size_t{columns[i]} * stride_bytes);
    }
}

}  // namespace
}  // namespace lavolta
