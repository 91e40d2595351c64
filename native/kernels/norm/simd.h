// LayerNorm and RMSNorm for any register type: lanes are tokens, so mean and variance need no sum across a register.
#pragma once

#include "../kernels.h"

namespace lavolta {
namespace {

// Sum over features of f(x), in four sums so that one addition need not wait for the last.
template <class V, class Term>
inline typename V::Reg sum_features(const NormArgs& a, const float* x, const Term& term) {
    typename V::Reg sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    size_t f = 0;
    for (; f + 4 <= a.features; f += 4) {
        for (size_t i = 0; i < 4; ++i) sums[i] = V::add(sums[i], term(V::load(x + (f + i) * a.stride)));
    }
    for (; f < a.features; ++f) sums[0] = V::add(sums[0], term(V::load(x + f * a.stride)));
    return V::add(V::add(sums[0], sums[1]), V::add(sums[2], sums[3]));
}

template <class V>
void norm(const NormArgs& a) {
    const auto count = V::set1(static_cast<float>(a.features));
    for (size_t token = a.token_begin; token < a.token_end; token += V::width) {
        const float* x = a.x + token;
        const auto mean = a.rms ? V::zero() : V::div(sum_features<V>(a, x, [](auto v) { return v; }), count);
        const auto square = sum_features<V>(a, x, [mean](auto v) {
            const auto d = V::sub(v, mean);
            return V::mul(d, d);
        });
        const auto scale = V::div(V::set1(1.0f), V::sqrt(V::add(V::div(square, count), V::set1(a.eps))));
        float* y = a.y + token;
        for (size_t f = 0; f < a.features; ++f) {
            const auto centered = V::mul(V::sub(V::load(x + f * a.stride), mean), scale);
            V::store(y + f * a.stride, V::fma(centered, V::set1(a.weight[f]), V::set1(a.rms ? 0.0f : a.bias[f])));
        }
    }
}

}  // namespace
}  // namespace lavolta
