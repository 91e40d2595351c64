// Products of bytes in registers and nothing else, with the dot product that the int8 kernels use.
#pragma once

#include "../kernels.h"

namespace lavolta {
namespace {

// The compiler may no longer know what is in the registers: products of the same numbers are computed again, as in a kernel.
template <class V>
inline __attribute__((always_inline)) void forget(typename V::Inputs& x) {
    if constexpr (sizeof(typename V::Inputs) == sizeof(typename V::Reg)) {
        asm volatile("" : "+x"(x));
    } else {
        asm volatile("" : "+x"(x.even), "+x"(x.odd));
    }
}

template <class V>
uint64_t peak_int8(uint64_t rounds) {
    // More independent sums than any core needs to hide the latency of a dot product.
    constexpr int sums = 12;
    static const volatile uint8_t one = 1;
    uint8_t bytes[V::width];
    for (size_t i = 0; i < V::width; ++i) bytes[i] = one;
    auto x = V::inputs(V::load(bytes));
    const auto w = V::weights(0x01010101 * one);
    typename V::Reg acc[sums];
#pragma GCC unroll 16
    for (int i = 0; i < sums; ++i) acc[i] = V::set1(i);
    for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) {
            forget<V>(x);
            acc[i] = V::dot(acc[i], x, w);
        }
    }
    volatile float sink = 0.0f;
#pragma GCC unroll 16
    for (int i = 0; i < sums; ++i) {
        float lanes[V::Float::width];
        V::Float::store(lanes, V::to_float(acc[i]));
        sink = sink + lanes[0];
    }
    return rounds * sums * V::width;
}

}  // namespace
}  // namespace lavolta
