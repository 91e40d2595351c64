// How a tile of sums begins, waits in y, and ends.
#pragma once

#include "../math.h"
#include "../tile.h"

namespace lavolta {
namespace {

// Activation and residual go over what was just stored, in a loop: in registers the sums would spill for every band.
template <class V, int R, int T>
inline __attribute__((always_inline)) void finish(const typename V::Reg (&acc)[R][T], float* y, const float* residual, size_t stride,
                                                  int rows, Activation activation) {
    const bool add = residual && activation == Activation::none;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        if (r >= rows) break;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) {
            const size_t at = r * stride + t * V::width;
            V::store(y + at, add ? V::add(acc[r][t], V::load(residual + at)) : acc[r][t]);
        }
    }
    if (activation == Activation::none) return;
    for (int r = 0; r < rows; ++r) {
        for (size_t at = r * stride; at < r * stride + T * V::width; at += V::width) {
            const auto v = activate<V>(V::load(y + at), activation);
            V::store(y + at, residual ? V::add(v, V::load(residual + at)) : v);
        }
    }
}

template <class V, int R, int T>
inline __attribute__((always_inline)) void start(typename V::Reg (&acc)[R][T], const float* bias, int rows) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = r < rows ? V::set1(bias[r]) : V::zero();
    }
}

// The sums that `pause` left in y.
template <class V, int R, int T>
inline __attribute__((always_inline)) void resume(typename V::Reg (&acc)[R][T], const float* y, size_t stride, int rows) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) acc[r][t] = r < rows ? V::load(y + r * stride + t * V::width) : V::zero();
    }
}

template <class V, int R, int T>
inline __attribute__((always_inline)) void pause(const typename V::Reg (&acc)[R][T], float* y, size_t stride, int rows) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        if (r >= rows) break;
#pragma GCC unroll 16
        for (int t = 0; t < T; ++t) V::store(y + r * stride + t * V::width, acc[r][t]);
    }
}

}  // namespace
}  // namespace lavolta
