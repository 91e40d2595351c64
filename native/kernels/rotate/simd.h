// Rotary positions for any register type: lanes are tokens.
#pragma once

#include "../kernels.h"

namespace lavolta {
namespace {

template <class V>
void rotate(const RotateArgs& a) {
    const size_t half = a.head_size / 2;
    for (size_t f = 0; f < half; ++f) {
        float* first = a.x + f * a.stride;
        float* second = first + half * a.stride;
        const float* cos = a.cos + f * a.stride;
        const float* sin = a.sin + f * a.stride;
        for (size_t token = a.token_begin; token < a.token_end; token += V::width) {
            const auto x = V::load(first + token), y = V::load(second + token);
            const auto c = V::load(cos + token), s = V::load(sin + token);
            V::store_first(first + token, V::fnma(y, s, V::mul(x, c)), a.token_end - token);
            V::store_first(second + token, V::fma(x, s, V::mul(y, c)), a.token_end - token);
        }
    }
}

}  // namespace
}  // namespace lavolta
