// Per-token quantization for any register type. Packing four registers of tokens, 16 apart, to bytes gives the order of
// `token_slot` by itself: nothing is shuffled back.
#pragma once

#include <cfloat>

#include "../kernels.h"

namespace lavolta {
namespace {

// Tokens of N registers, `Step` tokens apart, from `token`: their scales, and their bytes in rows of Width from u. Four registers
// go to a row of a block, those of 16 neighboring tokens to a row of a narrow one. The same for G - 1 neighbors of these
// registers, so that lines of x that are wider than a register are read once.
template <class V, int N, size_t Step, size_t Width, int G = 1>
void quantize_registers(const QuantizeArgs& a, size_t token, uint8_t* u) {
    typename V::Int largest[G][N];
    for (int g = 0; g < G; ++g) {
        for (int i = 0; i < N; ++i) largest[g][i] = V::zero_bits();
    }
    const float* x = a.x + token;
    for (size_t f = 0; f < a.features; ++f) {
        const float* const of_feature = x + f * a.stride;
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) {
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) largest[g][i] = V::max_magnitude(largest[g][i], of_feature + Step * i + V::width * g);
        }
    }
    typename V::Reg inverse[G][N];
    for (int g = 0; g < G; ++g) {
        for (int i = 0; i < N; ++i) {
            const auto m = V::as_float(largest[g][i]);
            const auto scale = V::div(m, V::set1(127.0f));
            // NaN and infinity are kept in the scale; a scale that is no normal number is zero.
            V::store(a.scale + token + Step * i + V::width * g, V::unless_less(scale, V::set1(FLT_MIN), scale));
            inverse[g][i] = V::unless_less(scale, V::set1(FLT_MIN), V::div(V::set1(127.0f), m));
        }
    }
    for (size_t f = 0; f < a.features; ++f) {
        const float* const of_feature = x + f * a.stride;
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            typename V::Int q[4] = {V::zero_bits(), V::zero_bits(), V::zero_bits(), V::zero_bits()};
#pragma GCC unroll 4
            for (int i = 0; i < N; ++i) {
                q[i] = V::round_to_int(V::mul(V::load(of_feature + Step * i + V::width * g), inverse[g][i]));
            }
            uint8_t* const to = u + f * Width + V::width * g * kQuad;
            if constexpr (Width == kQuantBlock) {
                V::store_bytes(to, q[0], q[1], q[2], q[3]);
            } else {
                V::store_narrow(to, q);
            }
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
        // Two registers of a line: more would not fit where registers are narrow.
        constexpr int together = V::width == 8 ? 2 : 1;
        for (size_t first = 0; first < 16; first += V::width * together) {
            uint8_t* to = u + first * kQuad;
            if (groups == 2) {
                quantize_registers<V, 2, 16, kQuantBlock, together>(a, block + first, to);
            } else if (groups == 3) {
                quantize_registers<V, 3, 16, kQuantBlock, together>(a, block + first, to);
            } else {
                quantize_registers<V, 4, 16, kQuantBlock, together>(a, block + first, to);
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
