// Multiply-adds in registers and nothing else, for any register type.
#pragma once

#include "../kernels.h"

namespace lavolta {
namespace {

template <class V>
uint64_t peak(uint64_t rounds) {
    // More independent sums than any core needs to hide the latency of a multiply-add (2 pipes x 5 cycles).
    constexpr int sums = 12;
    // From memory, or the compiler would compute the end of the series itself.
    static const volatile float half = 0.5f;
    const auto factor = V::set1(half);
    typename V::Reg acc[sums];
#pragma GCC unroll 16
    for (int i = 0; i < sums; ++i) acc[i] = V::set1(static_cast<float>(i));
    // Sums are added to, as in a product: some processors have no other multiply-add.
    for (uint64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
        for (int i = 0; i < sums; ++i) acc[i] = V::fma(factor, factor, acc[i]);
    }
    auto total = V::zero();
#pragma GCC unroll 16
    for (int i = 0; i < sums; ++i) total = V::add(total, acc[i]);
    float lanes[V::width];
    V::store(lanes, total);
    volatile float sink = lanes[0];
    static_cast<void>(sink);
    return rounds * sums * V::width;
}

}  // namespace
}  // namespace lavolta
