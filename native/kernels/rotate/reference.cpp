// Rotary positions, portable. Su et al., "RoFormer", 2021, equation 34, with the pairs of Llama: i and i + half.
#include "../kernels.h"

namespace lavolta {

void rotate_reference(const RotateArgs& a) {
    const size_t half = a.head_size / 2;
    for (size_t f = 0; f < half; ++f) {
        for (size_t token = a.token_begin; token < a.token_end; ++token) {
            float& first = a.x[f * a.stride + token];
            float& second = a.x[(f + half) * a.stride + token];
            const float cos = a.cos[f * a.stride + token], sin = a.sin[f * a.stride + token], before = first;
            first = before * cos - second * sin;
            second = second * cos + before * sin;
        }
    }
}

}  // namespace lavolta
