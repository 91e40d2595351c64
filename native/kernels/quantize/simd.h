// Per-token quantization for any register type. Packing four registers of tokens, 16 apart, to bytes gives the order of
// `token_slot` by itself: nothing is shuffled back.
#pragma once

#include <cfloat>

#include "../kernels.h"

namespace lavolta {
namespace {

// Tokens of G groups of 16 from `block`; of each group the V::width tokens from `first`.
template <class V, int G>
void quantize_groups(const QuantizeArgs& a, size_t block, size_t first) {
    typename V::Int largest[G];
    for (int g = 0; g < G; ++g) largest[g] = V::zero_bits();
    const float* x = a.x + block + first;
    for (size_t f = 0; f < a.features; ++f) {
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) largest[g] = V::max_magnitude(largest[g], x + f * a.stride + 16 * g);
    }
    typename V::Reg inverse[G];
    for (int g = 0; g < G; ++g) {
        const auto m = V::as_float(largest[g]);
        const auto scale = V::div(m, V::set1(127.0f));
        // NaN and infinity are kept in the scale; a scale that is no normal number is zero.
        V::store(a.scale + block + first + 16 * g, V::unless_less(scale, V::set1(FLT_MIN), scale));
        inverse[g] = V::unless_less(scale, V::set1(FLT_MIN), V::div(V::set1(127.0f), m));
    }
    uint8_t* u = a.u + block + first * 4;
    for (size_t f = 0; f < a.features; ++f) {
        typename V::Int q[4] = {V::zero_bits(), V::zero_bits(), V::zero_bits(), V::zero_bits()};
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) q[g] = V::round_to_int(V::mul(V::load(x + f * a.stride + 16 * g), inverse[g]));
        V::store_bytes(u + f * a.quant_stride, q[0], q[1], q[2], q[3]);
    }
}

template <class V>
void quantize(const QuantizeArgs& a) {
    for (size_t block = a.token_begin; block < a.token_end; block += kQuantBlock) {
        for (size_t first = 0; first < 16; first += V::width) {
            switch ((a.token_end - block + 15) / 16) {
                case 1:
                    quantize_groups<V, 1>(a, block, first);
                    break;
                case 2:
                    quantize_groups<V, 2>(a, block, first);
                    break;
                case 3:
                    quantize_groups<V, 3>(a, block, first);
                    break;
                default:
                    quantize_groups<V, 4>(a, block, first);
            }
        }
    }
}

}  // namespace
}  // namespace lavolta
