// What one token needs of NEON beside the arithmetic. Included by files that are compiled for it only.
#pragma once

#include <cstring>

#include "../kernels.h"
#include "../simd_neon.h"
#include "../ahead.h"

namespace lavolta {
namespace {

struct TokenNeon : Neon {
    // How `permute` spreads four cells: 0 each over one lane, 1 and 2 the first and the last two over two lanes each.
    using Index = int;

    static Reg load_first(const float* p, size_t count) {
        if (count >= 4) return load(p);
        float lanes[4] = {};
        std::memcpy(lanes, p, count * sizeof(float));
        return load(lanes);
    }
    static Reg gather(const float* x, const uint16_t* columns) {
        Reg found = vld1q_dup_f32(x + columns[0]);
        found = vld1q_lane_f32(x + columns[1], found, 1);
        found = vld1q_lane_f32(x + columns[2], found, 2);
        return vld1q_lane_f32(x + columns[3], found, 3);
    }
    // The last `count` lanes, 0 in the others; below 4.
    static Reg keep_last(Reg v, size_t count) {
        static const uint32_t lanes[8] = {0, 0, 0, 0, ~0u, ~0u, ~0u, ~0u};
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vld1q_u32(lanes + count)));
    }
    static Reg permute(Reg v, Index index) {
        if (index == 0) return v;
        const float32x4x2_t twice = vzipq_f32(v, v);
        return index == 1 ? twice.val[0] : twice.val[1];
    }
    // Lane l of register j has a row of cell j * (4 / R) + l / R.
    template <int R>
    static constexpr Index spread(int j) {
        return R == 1 ? 0 : 1 + j;
    }
    template <int R>
    static constexpr bool broadcasts = false;
};

// Sums of quads four at a time, D::add<R>(acc, inputs of four quads, their values), D::finish<R>(acc, sums of the rows).
template <class D>
struct TokenBytes128 {
    using Float = TokenNeon;
    static constexpr size_t step = 4;

    static inline __attribute__((always_inline)) int8x16_t inputs(const int8_t* q, const uint16_t* columns) {
        int8x8_t low = vdup_n_s8(0), high = low;
        each<8>([&](auto lane) {
            constexpr int l = decltype(lane)::value;
            low = vld1_lane_s8(q + columns[l], low, l);
            high = vld1_lane_s8(q + columns[8 + l], high, l);
        });
        return vcombine_s8(low, high);
    }

    template <int R>
    static void sums(const int8_t* q, const int8_t* values, const uint16_t* columns, size_t quads, int32_t (&out)[R]) {
        constexpr int registers = D::template registers<R>();
        int32x4_t acc[registers];
        for (int i = 0; i < registers; ++i) acc[i] = vdupq_n_s32(0);
        for (; quads >= step; quads -= step, columns += step * kQuad, values += step * R * kQuad) {
            fetch_ahead<step * R * kQuad>(values);
            D::template add<R>(acc, inputs(q, columns), values);
        }
        if (quads) {
            // Absent quads read the first input and have weights of 0.
            uint16_t last_columns[step * kQuad] = {};
            int8_t last_values[step * R * kQuad] = {};
            std::memcpy(last_columns, columns, quads * kQuad * sizeof(uint16_t));
            std::memcpy(last_values, values, quads * R * kQuad);
            D::template add<R>(acc, inputs(q, last_columns), last_values);
        }
        D::template finish<R>(acc, out);
    }
};

// Without a dot product of bytes: products of two quads are added in 16 bits, which hold 2 x 127 x 127, then neighbors in 32.
// Two lanes of a sum belong to a row, but all four to the only one of R = 1.
struct TokenWidening : TokenBytes128<TokenWidening> {
    template <int R>
    static constexpr int registers() {
        return R < 2 ? 1 : R / 2;
    }

    template <int R>
    static void add(int32x4_t (&acc)[registers<R>()], int8x16_t x, const int8_t* values) {
        if constexpr (R == 1) {
            const int8x16_t w = vld1q_s8(values);
            const int16x8_t products = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            acc[0] = vpadalq_s16(acc[0], vmlal_s8(products, vget_high_s8(w), vget_high_s8(x)));
        } else {
            const int32x2_t halves[2] = {vreinterpret_s32_s8(vget_low_s8(x)), vreinterpret_s32_s8(vget_high_s8(x))};
            each<2>([&](auto half) {
                constexpr int h = decltype(half)::value;
                const int8x8_t first = vreinterpret_s8_s32(vdup_lane_s32(halves[h], 0));
                const int8x8_t second = vreinterpret_s8_s32(vdup_lane_s32(halves[h], 1));
                const int8_t* w = values + 2 * h * R * kQuad;
                each<R / 2>([&](auto pair) {
                    constexpr int p = decltype(pair)::value;
                    const int16x8_t products = vmull_s8(vld1_s8(w + 8 * p), first);
                    acc[p] = vpadalq_s16(acc[p], vmlal_s8(products, vld1_s8(w + R * kQuad + 8 * p), second));
                });
            });
        }
    }

    template <int R>
    static void finish(const int32x4_t (&acc)[registers<R>()], int32_t* out) {
        int32_t lanes[4 * registers<R>()];
        each<registers<R>()>([&](auto i) { vst1q_s32(lanes + 4 * i, acc[i]); });
        if constexpr (R == 1) {
            out[0] = lanes[0] + lanes[1] + lanes[2] + lanes[3];
        } else {
            for (int r = 0; r < R; ++r) out[r] = lanes[2 * r] + lanes[2 * r + 1];
        }
    }
};

#if defined(__ARM_FEATURE_DOTPROD)

// Lanes are rows; of low cells, rows of several quads.
struct TokenDot : TokenBytes128<TokenDot> {
    // At least four sums hide the latency of a dot product.
    template <int R>
    static constexpr int registers() {
        return R < 4 ? R : 4;
    }

    template <int R>
    static void add(int32x4_t (&acc)[registers<R>()], int8x16_t x, const int8_t* values) {
        if constexpr (R == 1) {
            acc[0] = vdotq_s32(acc[0], vld1q_s8(values), x);
        } else if constexpr (R == 2) {
            const int32x4_t quads = vreinterpretq_s32_s8(x);
            acc[0] = vdotq_s32(acc[0], vld1q_s8(values), vreinterpretq_s8_s32(vzip1q_s32(quads, quads)));
            acc[1] = vdotq_s32(acc[1], vld1q_s8(values + 16), vreinterpretq_s8_s32(vzip2q_s32(quads, quads)));
        } else {
            constexpr int T = R / 4;
            each<4>([&](auto quad) {
                constexpr int i = decltype(quad)::value;
                each<T>([&](auto part) {
                    constexpr int t = decltype(part)::value, sum = (i * T + t) % 4;
                    acc[sum] = vdotq_laneq_s32(acc[sum], vld1q_s8(values + 16 * (i * T + t)), x, i);
                });
            });
        }
    }

    template <int R>
    static void finish(const int32x4_t (&acc)[registers<R>()], int32_t* out) {
        int32_t lanes[4 * registers<R>()];
        each<registers<R>()>([&](auto i) { vst1q_s32(lanes + 4 * i, acc[i]); });
        for (int r = 0; r < R; ++r) out[r] = lanes[r];
        for (int lane = R; lane < 4 * registers<R>(); ++lane) out[lane % R] += lanes[lane];
    }
};

#endif

}  // namespace
}  // namespace lavolta
