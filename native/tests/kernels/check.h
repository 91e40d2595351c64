// What the tests of kernels share: counting, numbers that every platform draws alike, bounds.
//
// Kernel and reference each err by at most the bound of their sums (Higham, "Accuracy and Stability of Numerical Algorithms",
// 3.5), so they differ by at most twice that. Padding is NaN wherever a kernel may read but not use it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels.h"

namespace lavolta {

constexpr float kEps = std::numeric_limits<float>::epsilon();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
// Where NaN would not be seen: what a kernel must not overwrite.
constexpr float kKeep = -7.0f;

extern size_t checks, failures;

void expect(bool good, const std::string& where, double value, double expected, double tolerance);

inline void expect_near(float value, float expected, double tolerance, const std::string& where) {
    expect(std::fabs(static_cast<double>(value) - expected) <= tolerance, where, value, expected, tolerance);
}

// Numbers of either sign, spread over [-1, 1): a linear congruential generator, so that every platform draws the same.
class Numbers {
   public:
    explicit Numbers(uint64_t seed) : state_(seed * 2 + 1) {}
    uint32_t below(uint32_t limit) { return static_cast<uint32_t>((next() >> 33) % limit); }
    float number() { return static_cast<float>(static_cast<int64_t>(next()) >> 40) * 0x1p-23f; }
    std::vector<float> numbers(size_t count) {
        std::vector<float> values(count);
        for (float& value : values) value = number();
        return values;
    }

   private:
    uint64_t next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
    uint64_t state_;
};

inline size_t stride_of(size_t tokens) { return (tokens + kTokenPad - 1) / kTokenPad * kTokenPad; }

// (features, stride), padding NaN.
inline std::vector<float> activations(Numbers& numbers, size_t features, size_t tokens) {
    std::vector<float> values(features * stride_of(tokens) + kSlack, kNan);
    for (size_t f = 0; f < features; ++f) {
        for (size_t t = 0; t < tokens; ++t) values[f * stride_of(tokens) + t] = numbers.number();
    }
    return values;
}

constexpr Activation kActivations[] = {Activation::none, Activation::gelu,      Activation::relu,
                                       Activation::tanh, Activation::gelu_tanh, Activation::silu};

constexpr double kSlope = 1.13;

// Error of an activation whose argument `before` has error `error`, own error included: no slope is above kSlope; those made
// of `exp` or `erf` err by less than 4 eps of their argument, tanh of 1.
inline double activation_bound(Activation activation, double before, double error) {
    switch (activation) {
        case Activation::none:
        case Activation::relu:
            return kSlope * error;
        case Activation::tanh:
            return kSlope * error + 4 * kEps;
        default:
            return kSlope * error + 4 * kEps * std::fabs(before);
    }
}

inline std::string place(const char* op, Isa isa, size_t a, size_t b, size_t c, size_t d) {
    return std::string(op) + " " + isa_name(isa) + " " + std::to_string(a) + " " + std::to_string(b) + " " + std::to_string(c) + " " +
           std::to_string(d);
}

// One test per op: void test_<op>(Isa, kernel, reference).
#define LAVOLTA_OP(op, type) void test_##op(Isa isa, type* kernel, type* reference);
LAVOLTA_OPS(LAVOLTA_OP)
#undef LAVOLTA_OP

}  // namespace lavolta
