// What one token needs of AVX2 beside the arithmetic. Included by files that are compiled with those flags only.
#pragma once

#include <cstring>

#include "../kernels.h"
#include "../simd_avx2.h"
#include "../ahead.h"

namespace lavolta {
namespace {

struct TokenAvx2 : Avx2 {
    using Index = __m256i;

    static Reg load_first(const float* p, size_t count) {
        return count >= 8 ? load(p) : _mm256_maskload_ps(p, first_lanes(count));
    }
    // Loads one by one: the gather of these processors takes many more instructions.
    static __m128 four(const float* x, const uint16_t* columns) {
        const __m128 low = _mm_unpacklo_ps(_mm_load_ss(x + columns[0]), _mm_load_ss(x + columns[1]));
        return _mm_movelh_ps(low, _mm_unpacklo_ps(_mm_load_ss(x + columns[2]), _mm_load_ss(x + columns[3])));
    }
    static Reg gather(const float* x, const uint16_t* columns) { return _mm256_set_m128(four(x, columns + 4), four(x, columns)); }
    // The last `count` lanes, 0 in the others; below 8.
    static Reg keep_last(Reg v, size_t count) {
        alignas(64) static constexpr int32_t lanes[16] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1};
        return _mm256_and_ps(v, _mm256_loadu_ps(reinterpret_cast<const float*>(lanes + count)));
    }
    static Reg permute(Reg v, Index index) { return _mm256_permutevar8x32_ps(v, index); }
    // Lane l of register j has a row of cell j * (8 / R) + l / R.
    template <int R>
    static Index spread(int j) {
        alignas(32) int32_t lanes[8];
        for (int l = 0; l < 8; ++l) lanes[l] = j * (8 / R) + l / R;
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
    }
    // Inputs of the cells of register j of a step: two cells of four rows are broadcast by their loads.
    template <int R>
    static constexpr bool broadcasts = R == 4;
    static Reg broadcast(const float* x, const uint16_t* columns, int j) {
        return _mm256_blend_ps(_mm256_broadcast_ss(x + columns[2 * j]), _mm256_broadcast_ss(x + columns[2 * j + 1]), 0xF0);
    }
};

// Sums of quads: |q| times the weights with the sign of q, in pairs that stay below 2^15.
struct TokenBytes256 {
    using Float = TokenAvx2;

    // Bytes of the inputs of one quad, and of two, one after another in the lowest places. Columns are loaded in pairs and bytes one
    // by one: how many instructions that takes is what limits a token.
    static __m128i four(const int8_t* q, const uint16_t* columns) {
        const uint32_t first = four_bytes(columns), second = four_bytes(columns + 2);
        __m128i x = _mm_cvtsi32_si128(static_cast<int>(four_bytes(q + (first & 0xFFFF))));
        x = _mm_insert_epi8(x, q[first >> 16], 1);
        x = _mm_insert_epi8(x, q[second & 0xFFFF], 2);
        return _mm_insert_epi8(x, q[second >> 16], 3);
    }
    static __m128i eight(const int8_t* q, const uint16_t* columns) {
        return _mm_unpacklo_epi32(four(q, columns), four(q, columns + kQuad));
    }
    static uint32_t four_bytes(const void* from) {
        uint32_t bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return bytes;
    }
    static __m128i sixteen(const int8_t* q, const uint16_t* columns) {
        return _mm_unpacklo_epi64(eight(q, columns), eight(q, columns + 8));
    }
    static __m256i dot(__m256i sum, __m256i q, __m256i w) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(w, q));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static __m256i load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

    // A step of `step` quads from whole arrays.
    template <int R>
    static void add(__m256i (&acc)[2], const int8_t* q, const uint16_t* columns, const int8_t* values) {
        if constexpr (R >= 8) {
            const __m256i both = _mm256_broadcastq_epi64(eight(q, columns));
            const __m256i first = _mm256_shuffle_epi32(both, 0x00), second = _mm256_shuffle_epi32(both, 0x55);
#pragma GCC unroll 2
            for (int t = 0; t < R / 8; ++t) {
                acc[t] = dot(acc[t], first, load(values + t * 32));
                acc[t] = dot(acc[t], second, load(values + R * kQuad + t * 32));
            }
        } else if constexpr (R == 4) {
            // The first quad in all lanes of the lower half, the second in all of the upper.
            const __m256i both = _mm256_broadcastq_epi64(eight(q, columns));
            const __m256i places = _mm256_setr_epi64x(0x0302010003020100, 0x0302010003020100, 0x0706050407060504, 0x0706050407060504);
            acc[0] = dot(acc[0], _mm256_shuffle_epi8(both, places), load(values));
        } else if constexpr (R == 2) {
            const __m256i quads = _mm256_permute4x64_epi64(_mm256_castsi128_si256(sixteen(q, columns)), 0x50);
            acc[0] = dot(acc[0], _mm256_shuffle_epi32(quads, 0x50), load(values));
        } else {
            acc[0] = dot(acc[0], _mm256_set_m128i(sixteen(q, columns + 16), sixteen(q, columns)), load(values));
        }
    }

    // The quads behind the last step.
    template <int R>
    static void add_rest(__m256i (&acc)[2], const int8_t* q, const uint16_t* columns, const int8_t* values, size_t quads) {
        if constexpr (R >= 8) {
            const __m256i inputs = _mm256_broadcastd_epi32(four(q, columns));
#pragma GCC unroll 2
            for (int t = 0; t < R / 8; ++t) acc[t] = dot(acc[t], inputs, load(values + t * 32));
        } else if constexpr (R == 4) {
            const __m128i weights = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
            const __m256i inputs = _mm256_broadcastd_epi32(four(q, columns));
            acc[0] = dot(acc[0], inputs, _mm256_zextsi128_si256(weights));
        } else {
            // Absent quads read the first input and have weights of 0.
            constexpr size_t step = 8 / R;
            uint16_t last_columns[step * kQuad] = {};
            int8_t last_values[step * R * kQuad] = {};
            std::memcpy(last_columns, columns, quads * kQuad * sizeof(uint16_t));
            std::memcpy(last_values, values, quads * R * kQuad);
            add<R>(acc, q, last_columns, last_values);
        }
    }

    template <int R>
    static void sums(const int8_t* q, const int8_t* values, const uint16_t* columns, size_t quads, int32_t (&out)[R]) {
        constexpr size_t step = R >= 4 ? 2 : 8 / R;
        __m256i acc[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (; quads >= step; quads -= step, columns += step * kQuad, values += step * R * kQuad) {
            fetch_ahead<step * R * kQuad>(values);
            add<R>(acc, q, columns, values);
        }
        if (quads) add_rest<R>(acc, q, columns, values, quads);
        if constexpr (R >= 8) {
            for (int t = 0; t < R / 8; ++t) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * t), acc[t]);
        } else {
            // Lanes that belong to a row are R apart.
            __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(acc[0]), _mm256_extracti128_si256(acc[0], 1));
            if constexpr (R <= 2) sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
            if constexpr (R == 1) sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
            std::memcpy(out, &sum, sizeof out);
        }
    }
};

}  // namespace
}  // namespace lavolta
