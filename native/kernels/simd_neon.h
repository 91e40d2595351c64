// Four floats in a register: NEON of aarch64 (32 registers) and of ARMv7-A (16 registers). ARMv7's NEON has no fused
// multiply-add by element, no division, no square root and flushes denormal numbers to 0; multiply-add there rounds the product.
#pragma once

#include <arm_neon.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace lavolta {
namespace {

// body(0), body(1), ... body(N - 1), each with its number as a constant: instructions name a lane by a constant.
template <class Body, int... I>
inline __attribute__((always_inline)) void each_of(std::integer_sequence<int, I...>, const Body& body) {
    (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
inline __attribute__((always_inline)) void each(const Body& body) {
    each_of(std::make_integer_sequence<int, N>{}, body);
}

struct Neon {
    using Reg = float32x4_t;
    static constexpr size_t width = 4;
#if defined(__aarch64__)
    static constexpr int registers = 32;
#else
    static constexpr int registers = 16;
#endif

    // acc[r][t] += w[r] * tokens[t]: weights are multiplied from the lanes of a register, so that R of them take R / 4 registers.
    static constexpr bool multiplies_lanes = true;
    template <int R, int T>
    static inline __attribute__((always_inline)) void add_rows(Reg (&acc)[R][T], const float* w, const Reg (&tokens)[T]) {
        static_assert(R % 4 == 0, "whole registers of weights");
        Reg weights[R / 4];
        each<R / 4>([&](auto i) { weights[i] = vld1q_f32(w + 4 * i); });
        each<R>([&](auto row) {
            constexpr int r = decltype(row)::value;
            each<T>([&](auto t) {
#if defined(__aarch64__)
                acc[r][t] = vfmaq_laneq_f32(acc[r][t], tokens[t], weights[r / 4], r % 4);
#else
                const float32x2_t half = r % 4 < 2 ? vget_low_f32(weights[r / 4]) : vget_high_f32(weights[r / 4]);
                acc[r][t] = vmlaq_lane_f32(acc[r][t], tokens[t], half, r % 2);
#endif
            });
        });
    }

    static uint32x4_t first_lanes(size_t count) {
        static const uint32_t lanes[4] = {0, 1, 2, 3};
        return vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(count >= 4 ? 4 : static_cast<uint32_t>(count)));
    }

    // Leading columns of `columns` that are in [low, low + width), at most `count`.
    static uint32_t columns_within(const uint16_t* columns, uint32_t count, uint32_t low, uint32_t width) {
        uint32_t i = 0;
        while (i < count && columns[i] - low < width) ++i;
        return i;
    }

    static Reg load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, Reg v) { vst1q_f32(p, v); }
    static void store_first(float* p, Reg v, size_t count) {
        if (count >= 4) return vst1q_f32(p, v);
        float lanes[4];
        vst1q_f32(lanes, v);
        std::memcpy(p, lanes, count * sizeof(float));
    }
    static Reg zero() { return vdupq_n_f32(0.0f); }
    static Reg set1(float v) { return vdupq_n_f32(v); }
#if defined(__aarch64__)
    static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }   // a * b + c
    static Reg fnma(Reg a, Reg b, Reg c) { return vfmsq_f32(c, a, b); }  // c - a * b
    static Reg div(Reg a, Reg b) { return vdivq_f32(a, b); }
    static Reg sqrt(Reg a) { return vsqrtq_f32(a); }
    static Reg round(Reg a) { return vrndnq_f32(a); }
#else
    static Reg fma(Reg a, Reg b, Reg c) { return vmlaq_f32(c, a, b); }   // a * b + c
    static Reg fnma(Reg a, Reg b, Reg c) { return vmlsq_f32(c, a, b); }  // c - a * b
    // Two Newton steps from the 8-bit estimate, then one correction of the quotient by its remainder: within 2 units in the last
    // place for finite a and normal b.
    static Reg div(Reg a, Reg b) {
        Reg reciprocal = vrecpeq_f32(b);
        reciprocal = vmulq_f32(reciprocal, vrecpsq_f32(b, reciprocal));
        reciprocal = vmulq_f32(reciprocal, vrecpsq_f32(b, reciprocal));
        const Reg quotient = vmulq_f32(a, reciprocal);
        return vmlaq_f32(quotient, vmlsq_f32(a, quotient, b), reciprocal);
    }
    static Reg sqrt(Reg a) {
        float lanes[4];
        vst1q_f32(lanes, a);
        for (float& lane : lanes) lane = std::sqrt(lane);
        return vld1q_f32(lanes);
    }
    // Half to even, |a| < 2^22: the addition leaves no bits behind the point.
    static Reg round(Reg a) {
        const Reg shift = vdupq_n_f32(12582912.0f);  // 1.5 * 2^23
        return vsubq_f32(vaddq_f32(a, shift), shift);
    }
#endif
    static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
    static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
    static Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
    // The second operand where one is NaN.
    static Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static Reg min(Reg a, Reg b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
    // a * 2^n for integral n, -126 <= n <= 127.
    static Reg scale2(Reg a, Reg n) {
        const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
        return vmulq_f32(a, vreinterpretq_f32_s32(exponent));
    }
    // v where a >= b, else 0.
    static Reg where_ge(Reg a, Reg b, Reg v) {
        return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(a, b), vreinterpretq_u32_f32(v)));
    }
    // v, but 0 where a < b; v where one is NaN.
    static Reg unless_less(Reg a, Reg b, Reg v) {
        return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(a, b)));
    }
    // a with the sign of b.
    static Reg copysign(Reg a, Reg b) { return vbslq_f32(vdupq_n_u32(0x80000000u), b, a); }
    static Reg abs(Reg a) { return vabsq_f32(a); }
    // `other` in the first `count` lanes, v in the rest.
    static Reg replace_first(Reg v, Reg other, size_t count) { return vbslq_f32(first_lanes(count), other, v); }
};

}  // namespace
}  // namespace lavolta
