// Peak of multiply-adds, portable: what the compiler makes of plain floats.
#include "../kernels.h"

namespace lavolta {

uint64_t peak_reference(uint64_t rounds) {
    constexpr int sums = 32;
    static const volatile float half = 0.5f;
    const float factor = half;
    float acc[sums];
    for (int i = 0; i < sums; ++i) acc[i] = static_cast<float>(i);
    for (uint64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < sums; ++i) acc[i] = acc[i] * factor + factor;
    }
    volatile float sink = 0.0f;
    for (int i = 0; i < sums; ++i) sink = sink + acc[i];
    return rounds * sums;
}

}  // namespace lavolta
