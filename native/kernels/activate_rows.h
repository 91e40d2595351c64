// The activation of whole rows behind a product: beside sums in registers its constants would spill, and for a single tile they
// would hardly be loaded before it ends.
#pragma once

#include "math.h"

namespace lavolta {
namespace {

// Rows of sums that are not activated yet become outputs: `count` registers in each row, `step` floats from one to the next.
template <class F>
inline void activate_rows(float* y, const float* residual, size_t stride, int rows, size_t count, size_t step, Activation activation) {
    for (int r = 0; r < rows; ++r) {
        for (size_t i = 0; i < count; ++i) {
            const size_t at = r * stride + step * i;
            const auto v = activate<F>(F::load(y + at), activation);
            F::store(y + at, residual ? F::add(v, F::load(residual + at)) : v);
        }
    }
}

}  // namespace
}  // namespace lavolta
