// Activations of one number, from the C library.
#pragma once

#include <cmath>

#include "kernels.h"

namespace lavolta {

inline float activate(float x, Activation activation) {
    switch (activation) {
        case Activation::gelu:
            return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
        case Activation::relu:
            return x < 0.0f ? 0.0f : x;
        case Activation::tanh:
            return std::tanh(x);
        case Activation::gelu_tanh:
            return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
        case Activation::silu:
            return x / (1.0f + std::exp(-x));
        case Activation::none:
            break;
    }
    return x;
}

}  // namespace lavolta
