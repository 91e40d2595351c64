// What one token needs of AVX-512 beside the arithmetic. Included by files that are compiled with those flags only.
#pragma once

#include "../kernels.h"
#include "../simd_avx512.h"
#include "../ahead.h"

namespace lavolta {
namespace {

struct TokenAvx512 : Avx512 {
    using Index = __m512i;

    static __mmask16 first(size_t count) { return count >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << count) - 1); }
    static Reg load_first(const float* p, size_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
    static Reg gather(const float* x, const uint16_t* columns) {
        const __m512i index = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)));
        return _mm512_i32gather_ps(index, x, 4);
    }
    // The last `count` lanes, 0 in the others; below 16.
    static Reg keep_last(Reg v, size_t count) { return _mm512_maskz_mov_ps(__mmask16(0xFFFFu << (16 - count)), v); }
    static Reg permute(Reg v, Index index) { return _mm512_permutexvar_ps(index, v); }
    // Lane l of register j has a row of cell j * (16 / R) + l / R.
    template <int R>
    static Index spread(int j) {
        alignas(64) int32_t lanes[16];
        for (int l = 0; l < 16; ++l) lanes[l] = j * (16 / R) + l / R;
        return _mm512_load_si512(lanes);
    }
    template <int R>
    static constexpr bool broadcasts = false;
};

#if defined(__AVX512VNNI__)
// Sums of quads: the bytes of a quad's four inputs are one lane, beside the four weights of each of its rows.
struct TokenVnni512 {
    using Float = TokenAvx512;

    // Inputs of up to 4 quads as bytes u = q + 128; those of absent columns meet weights of 0.
    static __m128i inputs(const int8_t* q, const uint16_t* columns, size_t count) {
        const __mmask16 mask = TokenAvx512::first(count);
        const __m512i index = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, columns));
        const __m512i found = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, index, q, 1);
        return _mm_xor_si128(_mm512_cvtepi32_epi8(found), _mm_set1_epi8(static_cast<char>(0x80)));
    }

    template <int R>
    static __m512i spread(int j) {
        alignas(64) int32_t lanes[16];
        for (int l = 0; l < 16; ++l) lanes[l] = j * (16 / R) + l / R;
        return _mm512_load_si512(lanes);
    }

    template <int R>
    static void sums(const int8_t* q, const int8_t* values, const uint16_t* columns, size_t quads, int32_t (&out)[R]) {
        // Quads of a register, of a gather, of a step.
        constexpr size_t per_register = 16 / R, step = per_register < 4 ? 4 : per_register;
        constexpr int registers = static_cast<int>(step / per_register), gathers = static_cast<int>(step / 4);
        // `taken` is 128 times the sums of the weights, because inputs are u = q + 128.
        __m512i acc[registers], taken[registers], lanes_of[registers];
        const __m512i zero_input = _mm512_set1_epi8(static_cast<char>(kQuantZero));
#pragma GCC unroll 4
        for (int j = 0; j < registers; ++j) {
            acc[j] = taken[j] = _mm512_setzero_si512();
            lanes_of[j] = spread<R>(j);
        }
        const auto add = [&](size_t present) {
            __m512i x = _mm512_castsi128_si512(inputs(q, columns, present * kQuad));
            if constexpr (gathers >= 2) {
                x = _mm512_inserti32x4(x, inputs(q, columns + 16, present > 4 ? (present - 4) * kQuad : 0), 1);
            }
            if constexpr (gathers == 4) {
                x = _mm512_inserti32x4(x, inputs(q, columns + 32, present > 8 ? (present - 8) * kQuad : 0), 2);
                x = _mm512_inserti32x4(x, inputs(q, columns + 48, present > 12 ? (present - 12) * kQuad : 0), 3);
            }
#pragma GCC unroll 4
            for (int j = 0; j < registers; ++j) {
                const size_t from = j * per_register;
                const size_t rows = present > from ? (present - from) * R : 0;
                const __m512i w = _mm512_maskz_loadu_epi32(TokenAvx512::first(rows), values + from * R * kQuad);
                acc[j] = _mm512_dpbusd_epi32(acc[j], _mm512_permutexvar_epi32(lanes_of[j], x), w);
                taken[j] = _mm512_dpbusd_epi32(taken[j], zero_input, w);
            }
        };
        for (; quads >= step; quads -= step, columns += step * kQuad, values += step * R * kQuad) {
            fetch_ahead<step * R * kQuad>(values);
            add(step);
        }
        if (quads) add(quads);
#pragma GCC unroll 4
        for (int j = 0; j < registers; ++j) {
            acc[j] = _mm512_sub_epi32(acc[j], taken[j]);
            if (j > 0) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
        }
        alignas(64) int32_t lanes[16];
        _mm512_store_si512(lanes, acc[0]);
        for (int r = 0; r < R; ++r) out[r] = lanes[r];
        for (int lane = R; lane < 16; ++lane) out[lane % R] += lanes[lane];
    }
};
#endif

}  // namespace
}  // namespace lavolta
