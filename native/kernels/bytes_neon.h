// Int8 products on 16 bytes: NEON, and the dot products of aarch64 where they are compiled for. Included by files with those
// flags only.
//
// A register of one column holds four tokens of each 16 of a block, or all 16 of a narrow one. NEON and `sdot` multiply signed numbers: u = q + 128 becomes
// q when its highest bit is flipped, so sums need no correction. `usdot` multiplies u itself and needs one.
#pragma once

#include "kernels.h"
#include "simd_neon.h"

namespace lavolta {
namespace {

struct Bytes128 {
    using Float = Neon;
    using Reg = int32x4_t;
    static constexpr size_t width = 16;  // bytes
    static constexpr int zero = 0;       // of the inputs that are multiplied
    static constexpr bool saturates = false;

    static Reg set1(int32_t v) { return vdupq_n_s32(v); }
    static Reg add(Reg a, Reg b) { return vaddq_s32(a, b); }
    static float32x4_t to_float(Reg a) { return vcvtq_f32_s32(a); }
};

// Without a dot product of bytes. Columns are interleaved by two: a product of 16 bits takes two columns, and the same product of
// the two other columns is added to it (2 x 127 x 127 < 2^15), before neighbors join in 32 bits.
struct Widening : Bytes128 {
    static constexpr int tallest = 4;
    static constexpr int widest(int rows) { return registers(rows) ? 4 : 2; }
    static constexpr bool registers(int rows) { return Neon::registers == 32 || rows < 4; }

    static int8x16_t signed_bytes(const uint8_t* p) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(kQuantZero))); }
    static int8x16_t pairs(const int8_t* p) { return vreinterpretq_s8_s16(vld1q_dup_s16(reinterpret_cast<const int16_t*>(p))); }

#if defined(__aarch64__)
    static int16x8_t high_product(int8x16_t x, int8x16_t w) { return vmull_high_s8(x, w); }
    static int16x8_t high(int16x8_t sum, int8x16_t x, int8x16_t w) { return vmlal_high_s8(sum, x, w); }
#else
    static int16x8_t high_product(int8x16_t x, int8x16_t w) { return vmull_s8(vget_high_s8(x), vget_high_s8(w)); }
    static int16x8_t high(int16x8_t sum, int8x16_t x, int8x16_t w) { return vmlal_s8(sum, vget_high_s8(x), vget_high_s8(w)); }
#endif

    // 16 products in the instructions that they take below, for the measure of the peak.
    static Reg multiply(Reg sum, int8x16_t x, int8x16_t w) {
        return vpadalq_s16(sum, vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(w)), vget_low_s8(x), vget_low_s8(w)));
    }

    template <int R, int First, int T, size_t Width>
    static inline __attribute__((always_inline)) void add_quad(Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                               const uint16_t* columns) {
        const int8x16_t a = signed_bytes(u + columns[0] * Width), b = signed_bytes(u + columns[1] * Width);
        const int8x16_t c = signed_bytes(u + columns[2] * Width), d = signed_bytes(u + columns[3] * Width);
        // Pairs of tokens of groups 2 h and 2 h + 1, two bytes a token.
        int8x16_t ab[2], cd[2];
#if defined(__aarch64__)
        if constexpr (First < 2) ab[0] = vzip1q_s8(a, b), cd[0] = vzip1q_s8(c, d);
        if constexpr (First + T > 2) ab[1] = vzip2q_s8(a, b), cd[1] = vzip2q_s8(c, d);
#else
        const auto zip = [](int8x8_t x, int8x8_t y) {
            const int8x8x2_t zipped = vzip_s8(x, y);
            return vcombine_s8(zipped.val[0], zipped.val[1]);
        };
        if constexpr (First < 2) ab[0] = zip(vget_low_s8(a), vget_low_s8(b)), cd[0] = zip(vget_low_s8(c), vget_low_s8(d));
        if constexpr (First + T > 2) ab[1] = zip(vget_high_s8(a), vget_high_s8(b)), cd[1] = zip(vget_high_s8(c), vget_high_s8(d));
#endif
        each<R>([&](auto row) {
            constexpr int r = decltype(row)::value;
            const int8x16_t w01 = pairs(values + r * kQuad), w23 = pairs(values + r * kQuad + 2);
            // All registers of tokens in each of three turns: a core that issues in order need not wait for the turn before.
            int16x8_t products[T];
            each<T>([&](auto register_number) {
                constexpr int t = decltype(register_number)::value, group = First + t;
                const int8x16_t x = ab[group / 2];
                products[t] = group % 2 ? high_product(x, w01) : vmull_s8(vget_low_s8(x), vget_low_s8(w01));
            });
            each<T>([&](auto register_number) {
                constexpr int t = decltype(register_number)::value, group = First + t;
                const int8x16_t y = cd[group / 2];
                products[t] = group % 2 ? high(products[t], y, w23) : vmlal_s8(products[t], vget_low_s8(y), vget_low_s8(w23));
            });
            each<T>([&](auto t) { acc[r][t] = vpadalq_s16(acc[r][t], products[t]); });
        });
    }
};

#if defined(__ARM_FEATURE_DOTPROD)

// V::dot<Lane>(sum, tokens x 4, 4 rows x 4).
template <class V>
struct ByElement : Bytes128 {
    static constexpr int tallest = 8;
    static constexpr int widest(int rows) { return rows == 8 ? 2 : 4; }

    template <int R, int First, int T, size_t Width>
    static inline __attribute__((always_inline)) void add_quad(Reg (&acc)[R][T], const int8_t* values, const uint8_t* u,
                                                               const uint16_t* columns) {
        const uint8x16_t a = vld1q_u8(u + columns[0] * Width), b = vld1q_u8(u + columns[1] * Width);
        const uint8x16_t c = vld1q_u8(u + columns[2] * Width), d = vld1q_u8(u + columns[3] * Width);
        uint16x8_t ab[2], cd[2];
        if constexpr (First < 2) {
            ab[0] = vreinterpretq_u16_u8(vzip1q_u8(a, b));
            cd[0] = vreinterpretq_u16_u8(vzip1q_u8(c, d));
        }
        if constexpr (First + T > 2) {
            ab[1] = vreinterpretq_u16_u8(vzip2q_u8(a, b));
            cd[1] = vreinterpretq_u16_u8(vzip2q_u8(c, d));
        }
        typename V::Input x[T];
        each<T>([&](auto register_number) {
            constexpr int t = decltype(register_number)::value, group = First + t;
            const uint16x8_t quads = group % 2 ? vzip2q_u16(ab[group / 2], cd[group / 2]) : vzip1q_u16(ab[group / 2], cd[group / 2]);
            x[t] = V::input(vreinterpretq_u8_u16(quads));
        });
        int8x16_t w[(R + 3) / 4];
        if constexpr (R >= 4) {
            each<R / 4>([&](auto i) { w[i] = vld1q_s8(values + 16 * i); });
        } else if constexpr (R == 2) {
            w[0] = vcombine_s8(vld1_s8(values), vdup_n_s8(0));
        } else {
            w[0] = vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(values)));
        }
        each<R>([&](auto row) {
            constexpr int r = decltype(row)::value;
            each<T>([&](auto t) { acc[r][t] = V::template dot<r % 4>(acc[r][t], x[t], w[r / 4]); });
        });
    }
};

struct SignedDot : ByElement<SignedDot> {
    using Input = int8x16_t;
    static Input input(uint8x16_t quads) { return vreinterpretq_s8_u8(veorq_u8(quads, vdupq_n_u8(kQuantZero))); }
    static Reg multiply(Reg sum, int8x16_t x, int8x16_t w) { return dot<0>(sum, x, w); }
    template <int Lane>
    static Reg dot(Reg sum, Input x, int8x16_t w) {
        return vdotq_laneq_s32(sum, x, w, Lane);
    }
};

#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)

struct MixedDot : ByElement<MixedDot> {
    using Input = uint8x16_t;
    static constexpr int zero = kQuantZero;
    static constexpr bool saturates = false;
    static Input input(uint8x16_t quads) { return quads; }
    static Reg multiply(Reg sum, int8x16_t x, int8x16_t w) { return dot<0>(sum, vreinterpretq_u8_s8(x), w); }
    template <int Lane>
    static Reg dot(Reg sum, Input x, int8x16_t w) {
        return vusdotq_laneq_s32(sum, x, w, Lane);
    }
    static Reg add_weights(Reg sum, const int8_t* p) { return vusdotq_s32(sum, vdupq_n_u8(1), vld1q_s8(p)); }
};

#endif

}  // namespace
}  // namespace lavolta
