// exp and the activations over one register of any instruction set. Everything here has internal linkage: a function that was
// compiled for AVX-512 must never be the copy that the linker keeps for all.
#pragma once

#include "gelu_table.h"

namespace lavolta {
namespace {

template <class V, size_t N>
inline typename V::Reg polynomial(typename V::Reg x, const float (&coefficients)[N]) {
    typename V::Reg sum = V::set1(coefficients[N - 1]);
    for (size_t i = N - 1; i-- > 0;) sum = V::fma(sum, x, V::set1(coefficients[i]));
    return sum;
}

// exp(x) for x <= 0; 0 below -87, where the result would leave the normal floats; NaN stays NaN. Relative error below 2^-22.
// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, then the Taylor series of exp to r^7 (next term below 6e-9).
template <class V>
inline typename V::Reg exp_negative(typename V::Reg x) {
    static const float taylor[] = {1.0f, 1.0f, 1.0f / 2, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    const auto lowest = V::set1(-87.0f);
    const auto clamped = V::max(lowest, x);
    const auto n = V::round(V::mul(clamped, V::set1(1.44269504088896341f)));
    // ln 2 in two parts; the first has few enough bits that n times it is exact.
    auto r = V::fnma(n, V::set1(0.693359375f), clamped);
    r = V::fnma(n, V::set1(-2.12194440e-4f), r);
    return V::unless_less(x, lowest, V::scale2(polynomial<V>(r, taylor), n));
}

// 2^x for x <= 0, and 2^-126 below -126; NaN stays NaN. Relative error below 2^-22: x = n + r, |r| <= 1/2, then a polynomial that is
// 1 at 0, fitted to 2^r (minimax by reweighted least squares, relative error 1.6e-8).
template <class V>
inline typename V::Reg exp2_negative(typename V::Reg x) {
    static const float powers[] = {1.0f,           0.693147182f,   0.240226477f,   0.0555033237f,
                                   0.00961843692f, 0.0013398875f, 0.00015353362f};
    const auto clamped = V::max(V::set1(-126.0f), x);
    const auto n = V::round(clamped);
    return V::scale2(polynomial<V>(V::sub(clamped, n), powers), n);
}

// Quotient of two polynomials in z^2, fitted to erf(z) / z on |z| <= 3.92 (minimax by reweighted least squares, error of the
// quotient 1.7e-8); beyond, erf is 1 in float. All coefficients are positive: nothing cancels.
template <class V>
inline typename V::Reg erf(typename V::Reg x) {
    static const float p[] = {1.128379022e+00f, 1.927641993e-01f, 5.306049540e-02f,
                              3.868328874e-03f, 2.874785704e-04f, 2.034724577e-06f};
    static const float q[] = {1.0f,           5.041644910e-01f, 1.150846717e-01f,
                              1.517230439e-02f, 1.188113635e-03f, 3.807048663e-05f};
    const auto z = V::max(V::min(x, V::set1(3.92f)), V::set1(-3.92f));
    const auto u = V::mul(z, z);
    return V::div(V::mul(z, polynomial<V>(u, p)), polynomial<V>(u, q));
}

template <class V>
inline typename V::Reg gelu(typename V::Reg x) {
    if constexpr (V::width == 16) {
        return gelu_by_table<V>(x);
    } else {
        const auto half = V::mul(x, V::set1(0.5f));
        return V::fma(half, erf<V>(V::mul(x, V::set1(0.70710678118654752f))), half);
    }
}

// (1 - e^(-2|x|)) / (1 + e^(-2|x|)) with the sign of x; absolute error below 2^-22.
template <class V>
inline typename V::Reg tanh(typename V::Reg x) {
    const auto e = exp_negative<V>(V::mul(V::abs(x), V::set1(-2.0f)));
    const auto one = V::set1(1.0f);
    return V::copysign(V::div(V::sub(one, e), V::add(one, e)), x);
}

// x / (1 + e^(-u)), from e^(-|u|) so that neither sign overflows nor cancels.
template <class V>
inline typename V::Reg times_sigmoid(typename V::Reg x, typename V::Reg u) {
    const auto e = exp_negative<V>(V::sub(V::zero(), V::abs(u)));
    const auto one = V::set1(1.0f), zero = V::zero();
    // 1 for u >= 0, else e.
    const auto numerator = V::add(V::where_ge(u, zero, one), V::sub(e, V::where_ge(u, zero, e)));
    return V::mul(x, V::div(numerator, V::add(one, e)));
}

// (1 + tanh(u)) / 2 is the sigmoid of 2 u. Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016, section 2.
template <class V>
inline typename V::Reg gelu_tanh(typename V::Reg x) {
    const auto inner = V::fma(V::mul(V::mul(x, x), x), V::set1(0.044715f), x);
    return times_sigmoid<V>(x, V::mul(inner, V::set1(1.59576912160573071f)));
}

template <class V>
inline typename V::Reg activate(typename V::Reg x, Activation activation) {
    switch (activation) {
        case Activation::gelu:
            return gelu<V>(x);
        case Activation::relu:
            // The second where one is NaN, which must not be lost.
            return V::max(V::zero(), x);
        case Activation::tanh:
            return tanh<V>(x);
        case Activation::gelu_tanh:
            return gelu_tanh<V>(x);
        case Activation::silu:
            return times_sigmoid<V>(x, x);
        case Activation::none:
            break;
    }
    return x;
}

}  // namespace
}  // namespace lavolta
