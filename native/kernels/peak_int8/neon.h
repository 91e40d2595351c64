// Products of bytes in registers and nothing else, for any register type of bytes_neon.h.
#pragma once

#include "../bytes_neon.h"

namespace lavolta {
namespace {

template <class V>
uint64_t peak_int8(uint64_t rounds) {
    // More independent sums than any core needs to hide the latency of a dot product.
    constexpr int sums = 12;
    static const volatile int8_t one = 1;
    int8x16_t x = vdupq_n_s8(one);
    const int8x16_t w = vdupq_n_s8(one);
    int32x4_t acc[sums];
    each<sums>([&](auto i) { acc[i] = vdupq_n_s32(i); });
    for (uint64_t round = 0; round < rounds; ++round) {
        each<sums>([&](auto i) {
            // The compiler may no longer know x: the same products are computed again, as in a kernel.
            asm volatile("" : "+w"(x));
            acc[i] = V::multiply(acc[i], x, w);
        });
    }
    volatile int32_t sink = 0;
    each<sums>([&](auto i) { sink = sink + vgetq_lane_s32(acc[i], 0); });
    return rounds * sums * V::width;
}

}  // namespace
}  // namespace lavolta
