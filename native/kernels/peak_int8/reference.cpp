// Peak of products of bytes, portable: what the compiler makes of plain integers.
#include "../kernels.h"

namespace lavolta {

uint64_t peak_int8_reference(uint64_t rounds) {
    constexpr int sums = 32;
    static const volatile int8_t three = 3;
    const int8_t weight = three;
    int32_t acc[sums];
    for (int i = 0; i < sums; ++i) acc[i] = i;
    for (uint64_t round = 0; round < rounds; ++round) {
        // The next factor is the last byte of the sum, or the loop could be computed without running it.
        for (int i = 0; i < sums; ++i) acc[i] = (acc[i] & 0xFFFF) + static_cast<uint8_t>(acc[i]) * weight;
    }
    volatile int32_t sink = 0;
    for (int i = 0; i < sums; ++i) sink = sink + acc[i];
    return rounds * sums;
}

}  // namespace lavolta
