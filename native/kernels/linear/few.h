// One to four tokens on x86: the rows of a cell fill a register, and the weights are streamed once at the speed of memory. Every
// row still adds its products in stored order, so the bits are those of the walk for many tokens.
#pragma once

#include <immintrin.h>

#include "epilogue.h"

namespace lavolta {
namespace {

constexpr size_t kFewTokens = 4;
// Inputs of the few tokens that are gathered side by side; wider layers take the walk for many tokens.
constexpr size_t kFewInputs = 16384;

// A register of R rows.
template <int R>
struct Rows;

template <>
struct Rows<1> {
    using Reg = __m128;
    static Reg load(const float* p) { return _mm_load_ss(p); }
    static Reg set1(const float* p) { return _mm_load_ss(p); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm_fmadd_ss(a, b, c); }
    static void store(float* p, Reg v) { _mm_store_ss(p, v); }
};

template <>
struct Rows<2> {
    using Reg = __m128;
    // Not the load of a double: two floats need not lie where a double may.
    static Reg load(const float* p) { return _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
    static Reg set1(const float* p) { return _mm_broadcast_ss(p); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm_fmadd_ps(a, b, c); }
    static void store(float* p, Reg v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_castps_si128(v)); }
};

template <>
struct Rows<4> {
    using Reg = __m128;
    static Reg load(const float* p) { return _mm_loadu_ps(p); }
    static Reg set1(const float* p) { return _mm_broadcast_ss(p); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm_fmadd_ps(a, b, c); }
    static void store(float* p, Reg v) { _mm_storeu_ps(p, v); }
};

template <>
struct Rows<8> {
    using Reg = __m256;
    static Reg load(const float* p) { return _mm256_loadu_ps(p); }
    static Reg set1(const float* p) { return _mm256_broadcast_ss(p); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
    static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
};

// sum[b][t] += values * x over `count` cells of each of B bands, R of the cell_rows rows, N tokens.
template <int R, int N, int B>
inline __attribute__((always_inline)) void stream(typename Rows<R>::Reg (&sum)[B][N], const float* const (&values)[B],
                                                  const uint16_t* const (&columns)[B], size_t count, size_t cell_rows,
                                                  const float* x) {
    for (size_t i = 0; i < count; ++i) {
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b) {
            const auto w = Rows<R>::load(values[b] + i * cell_rows);
            const float* xi = x + size_t{columns[b][i]} * N;
#pragma GCC unroll 4
            for (int t = 0; t < N; ++t) sum[b][t] = Rows<R>::fma(w, Rows<R>::set1(xi + t), sum[b][t]);
        }
    }
}

// Rows [first_row, first_row + R) of bands [band, band + B): sums of N tokens to `to (N, B * R)`.
template <int R, int N, int B>
inline void few_rows(const LinearArgs& a, uint32_t band, uint32_t first_row, const float* x, float* to) {
    typename Rows<R>::Reg sum[B][N];
    uint32_t most_runs = 0;
    for (int b = 0; b < B; ++b) {
        float start[R];
        for (int r = 0; r < R; ++r) {
            const size_t row = (size_t{band} + b) * a.cell_rows + first_row + r;
            start[r] = row < a.out_features ? a.bias[row] : 0.0f;
        }
        for (int t = 0; t < N; ++t) sum[b][t] = Rows<R>::load(start);
        const uint32_t runs = a.run_ptr[band + b + 1] - a.run_ptr[band + b];
        most_runs = runs > most_runs ? runs : most_runs;
    }
    for (uint32_t run = 0; run < most_runs; ++run) {
        const float* values[B];
        const uint16_t* columns[B];
        size_t left[B], together = SIZE_MAX;
        for (int b = 0; b < B; ++b) {
            const uint32_t at = a.run_ptr[band + b] + run;
            const bool any = at < a.run_ptr[band + b + 1];
            const size_t cell = any ? a.runs[at].first : 0;
            left[b] = any ? a.runs[at].count : 0;
            values[b] = a.values + cell * a.cell_rows + first_row;
            columns[b] = a.columns + cell;
            together = left[b] < together ? left[b] : together;
        }
        // Several bands at once: one band's sum would wait for its own last multiply-add.
        stream<R, N, B>(sum, values, columns, together, a.cell_rows, x);
        for (int b = 0; b < B; ++b) {
            typename Rows<R>::Reg alone[1][N];
            for (int t = 0; t < N; ++t) alone[0][t] = sum[b][t];
            const float* const rest[1] = {values[b] + together * a.cell_rows};
            const uint16_t* const rest_columns[1] = {columns[b] + together};
            stream<R, N, 1>(alone, rest, rest_columns, left[b] - together, a.cell_rows, x);
            for (int t = 0; t < N; ++t) sum[b][t] = alone[0][t];
        }
    }
    for (int b = 0; b < B; ++b) {
        for (int t = 0; t < N; ++t) Rows<R>::store(to + (t * B + b) * R, sum[b][t]);
    }
}

// B bands; the epilogue is that of many tokens, lane by lane.
template <class V, int R, int N, int B>
__attribute__((noinline)) void few_bands(const LinearArgs& a, uint32_t band, const float* x) {
    // (N, B * R), padded to whole registers.
    float sums[N * B * R + V::width];
    for (uint32_t first_row = 0; first_row < a.cell_rows; first_row += R) {
        few_rows<R, N, B>(a, band, first_row, x, sums);
        if (a.activation != Activation::none) {
            for (int i = 0; i < N * B * R; i += static_cast<int>(V::width)) {
                V::store(sums + i, activate<V>(V::load(sums + i), a.activation));
            }
        }
        for (int b = 0; b < B; ++b) {
            for (int r = 0; r < R; ++r) {
                const size_t row = (size_t{band} + b) * a.cell_rows + first_row + r;
                if (row >= a.out_features) break;
                const size_t at = row * a.stride + a.token_begin;
                for (int t = 0; t < N; ++t) {
                    const float sum = sums[(t * B + b) * R + r];
                    a.y[at + t] = a.residual ? sum + a.residual[at + t] : sum;
                }
            }
        }
    }
}

template <class V, int R, int N>
void few_tokens(const LinearArgs& a) {
    constexpr int B = N == 1 ? 4 : 2;
    // The inputs side by side: at their stride every one lies in a cache line of its own.
    alignas(64) float x[kFewInputs];
    for (size_t column = 0; column < a.in_features; ++column) {
        for (int t = 0; t < N; ++t) x[column * N + t] = a.x[column * a.x_stride + a.token_begin + t];
    }
    uint32_t band = a.band_begin;
    for (; band + B <= a.band_end; band += B) few_bands<V, R, N, B>(a, band, x);
    for (; band < a.band_end; ++band) few_bands<V, R, N, 1>(a, band, x);
}

template <class V, int R>
void few_tokens_of(const LinearArgs& a) {
    switch (a.token_end - a.token_begin) {
        case 1:
            return few_tokens<V, R, 1>(a);
        case 2:
            return few_tokens<V, R, 2>(a);
        case 3:
            return few_tokens<V, R, 3>(a);
        default:
            return few_tokens<V, R, 4>(a);
    }
}

// Whether there are few enough tokens that it pays to broadcast them instead of the weights.
inline bool is_few(const LinearArgs& a) {
    const size_t tokens = a.token_end - a.token_begin;
    return tokens <= kFewTokens && tokens <= a.cell_rows && tokens * a.in_features <= kFewInputs;
}

template <class V>
void linear_few(const LinearArgs& a) {
    switch (a.cell_rows) {
        case 1:
            return few_tokens_of<V, 1>(a);
        case 2:
            return few_tokens_of<V, 2>(a);
        case 4:
            return few_tokens_of<V, 4>(a);
        default:
            return few_tokens_of<V, 8>(a);
    }
}

}  // namespace
}  // namespace lavolta
