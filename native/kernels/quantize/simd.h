// Per-token quantization for any register type. Packing four registers of tokens, 16 apart, to bytes gives the order of
// `token_slot` by itself: nothing is shuffled back.
#pragma once

#include <cfloat>

#include "../kernels.h"

namespace lavolta {
namespace {

// Tokens of N registers, `Step` tokens apart, from `token`: their scales, and their bytes in rows of Width from u. Four registers
// go to a row of a block, those of 16 neighboring tokens to a row of a narrow one.
template <class V, int N, size_t Step, size_t Width>
void quantize_registers(const QuantizeArgs& a, size_t token, uint8_t* u) {
    typename V::Int largest[N];
    for (int i = 0; i < N; ++i) largest[i] = V::zero_bits();
    const float* x = a.x + token;
    for (size_t f = 0; f < a.features; ++f) {
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) largest[i] = V::max_magnitude(largest[i], x + f * a.stride + Step * i);
    }
    typename V::Reg inverse[N];
    for (int i = 0; i < N; ++i) {
        const auto m = V::as_float(largest[i]);
        const auto scale = V::div(m, V::set1(127.0f));
        // NaN and infinity are kept in the scale; a scale that is no normal number is zero.
        V::store(a.scale + token + Step * i, V::unless_less(scale, V::set1(FLT_MIN), scale));
        inverse[i] = V::unless_less(scale, V::set1(FLT_MIN), V::div(V::set1(127.0f), m));
    }
    for (size_t f = 0; f < a.features; ++f) {
        typename V::Int q[4] = {V::zero_bits(), V::zero_bits(), V::zero_bits(), V::zero_bits()};
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) q[i] = V::round_to_int(V::mul(V::load(x + f * a.stride + Step * i), inverse[i]));
        if constexpr (Width == kQuantBlock) {
            V::store_bytes(u + f * Width, q[0], q[1], q[2], q[3]);
        } else {
            V::store_narrow(u + f * Width, q);
        }
    }
}

template <class V>
void quantize(const QuantizeArgs& a) {
    for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
        uint8_t* u = a.u + block * a.features;
        const size_t groups = (a.token_end - block + 15) / 16;
        if (groups == 1) {
            quantize_registers<V, 16 / V::width, V::width, kNarrowBlock>(a, block, u);
            continue;
        }
        for (size_t first = 0; first < 16; first += V::width) {
            uint8_t* to = u + first * kQuad;
            if (groups == 2) {
                quantize_registers<V, 2, 16, kQuantBlock>(a, block + first, to);
            } else if (groups == 3) {
                quantize_registers<V, 3, 16, kQuantBlock>(a, block + first, to);
            } else {
                quantize_registers<V, 4, 16, kQuantBlock>(a, block + first, to);
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
