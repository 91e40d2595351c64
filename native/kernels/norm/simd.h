// LayerNorm and RMSNorm for any register type: lanes are tokens, so mean and variance need no sum across a register.
#pragma once

#include "../kernels.h"

namespace lavolta {
namespace {

// Sums over features of f(x, register), one for each of G neighboring registers; each in four parts so that one addition need not
// wait for the last.
template <class V, int G, class Term>
inline void sum_features(const NormArgs& a, const float* x, typename V::Reg (&sum)[G], const Term& term) {
    typename V::Reg parts[4][G];
    for (auto& part : parts) {
        for (int g = 0; g < G; ++g) part[g] = V::zero();
    }
    size_t f = 0;
    for (; f + 4 <= a.features; f += 4) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i) {
#pragma GCC unroll 2
            for (int g = 0; g < G; ++g) parts[i][g] = V::add(parts[i][g], term(V::load(x + (f + i) * a.stride + g * V::width), g));
        }
    }
    for (; f < a.features; ++f) {
        for (int g = 0; g < G; ++g) parts[0][g] = V::add(parts[0][g], term(V::load(x + f * a.stride + g * V::width), g));
    }
    for (int g = 0; g < G; ++g) sum[g] = V::add(V::add(parts[0][g], parts[1][g]), V::add(parts[2][g], parts[3][g]));
}

template <class V>
void norm(const NormArgs& a) {
    // Registers of a cache line, so that it is read once in a pass; more would not fit where registers are narrow.
    constexpr int G = V::width == 8 ? 2 : 1;
    const auto count = V::set1(static_cast<float>(a.features));
    for (size_t token = a.token_begin; token < a.token_end; token += V::width * G) {
        const float* x = a.x + token;
        typename V::Reg mean[G], scale[G];
        for (int g = 0; g < G; ++g) mean[g] = V::zero();
        if (!a.rms) {
            sum_features<V>(a, x, mean, [](auto v, int) { return v; });
            for (int g = 0; g < G; ++g) mean[g] = V::div(mean[g], count);
        }
        sum_features<V>(a, x, scale, [&mean](auto v, int g) {
            const auto d = V::sub(v, mean[g]);
            return V::mul(d, d);
        });
        for (int g = 0; g < G; ++g) {
            scale[g] = V::div(V::set1(1.0f), V::sqrt(V::add(V::div(scale[g], count), V::set1(a.eps))));
        }
        float* y = a.y + token;
        for (size_t f = 0; f < a.features; ++f) {
            const auto weight = V::set1(a.weight[f]), bias = V::set1(a.rms ? 0.0f : a.bias[f]);
#pragma GCC unroll 2
            for (int g = 0; g < G; ++g) {
                const size_t at = f * a.stride + g * V::width;
                V::store(y + at, V::fma(V::mul(V::sub(V::load(x + at), mean[g]), scale[g]), weight, bias));
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
