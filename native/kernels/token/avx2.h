// What one token needs of AVX2 beside the arithmetic. Included by files that are compiled with those flags only.
#pragma once

#include <cstring>

#include "../kernels.h"
#include "../simd_avx2.h"

namespace lavolta {
namespace {

struct TokenAvx2 : Avx2 {
    using Index = __m256i;

    static Reg load_first(const float* p, size_t count) {
        return count >= 8 ? load(p) : _mm256_maskload_ps(p, first_lanes(count));
    }
    static Index eight(const uint16_t* columns) {
        return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns)));
    }
    static Reg gather(const float* x, const uint16_t* columns) { return _mm256_i32gather_ps(x, eight(columns), 4); }
    static Reg gather_first(const float* x, const uint16_t* columns, size_t count) {
        uint16_t present[8] = {};
        std::memcpy(present, columns, count * sizeof(uint16_t));
        return _mm256_and_ps(gather(x, present), _mm256_castsi256_ps(first_lanes(count)));
    }
    static Reg permute(Reg v, Index index) { return _mm256_permutevar8x32_ps(v, index); }
    // Lane l of register j has a row of cell j * (8 / R) + l / R.
    template <int R>
    static Index spread(int j) {
        alignas(32) int32_t lanes[8];
        for (int l = 0; l < 8; ++l) lanes[l] = j * (8 / R) + l / R;
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
    }
};

// Sums of quads: |q| times the weights with the sign of q, in pairs that stay below 2^15.
struct TokenBytes256 {
    using Float = TokenAvx2;

    // Inputs of two quads: the bytes of the first in all lanes of the lower half, of the second in all of the upper.
    static __m256i inputs(const int32_t* q, const uint16_t* columns) {
        const __m256i found = _mm256_i32gather_epi32(q, TokenAvx2::eight(columns), 4);
        const __m256i words = _mm256_packs_epi32(found, found);
        return _mm256_packs_epi16(words, words);
    }
    static __m256i dot(__m256i sum, __m256i q, __m256i w) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(w, q));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static __m256i load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

    // A step of `step` quads from whole arrays.
    template <int R>
    static void add(__m256i (&acc)[2], const int32_t* q, const uint16_t* columns, const int8_t* values) {
        if constexpr (R >= 8) {
            const __m256i both = inputs(q, columns);
            const __m256i first = _mm256_permute2x128_si256(both, both, 0x00), second = _mm256_permute2x128_si256(both, both, 0x11);
#pragma GCC unroll 2
            for (int t = 0; t < R / 8; ++t) {
                acc[t] = dot(acc[t], first, load(values + t * 32));
                acc[t] = dot(acc[t], second, load(values + R * kQuad + t * 32));
            }
        } else if constexpr (R == 4) {
            acc[0] = dot(acc[0], inputs(q, columns), load(values));
        } else if constexpr (R == 2) {
            // Two lanes for each of four quads.
            const __m256i a = _mm256_permutevar8x32_epi32(inputs(q, columns), _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4));
            const __m256i b = _mm256_permutevar8x32_epi32(inputs(q, columns + 8), _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4));
            acc[0] = dot(acc[0], _mm256_blend_epi32(a, b, 0xF0), load(values));
        } else {
            // One lane for each of eight quads.
            const __m256i order = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
            const __m256i a = _mm256_permutevar8x32_epi32(inputs(q, columns), order);
            const __m256i b = _mm256_permutevar8x32_epi32(inputs(q, columns + 8), order);
            const __m256i c = _mm256_permutevar8x32_epi32(inputs(q, columns + 16), order);
            const __m256i d = _mm256_permutevar8x32_epi32(inputs(q, columns + 24), order);
            acc[0] = dot(acc[0], _mm256_blend_epi32(_mm256_blend_epi32(a, b, 0x0C), _mm256_blend_epi32(c, d, 0xC0), 0xF0), load(values));
        }
    }

    template <int R>
    static void sums(const TokenLinearInt8Args& a, uint32_t band, int32_t* out) {
        constexpr size_t step = R >= 4 ? 2 : 8 / R;
        __m256i acc[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (uint32_t r = a.run_ptr[band]; r < a.run_ptr[band + 1]; ++r) {
            const uint16_t* columns = a.columns + size_t{a.runs[r].first} * kQuad;
            const int8_t* values = a.values + size_t{a.runs[r].first} * R * kQuad;
            size_t quads = a.runs[r].count;
            for (; quads >= step; quads -= step, columns += step * kQuad, values += step * R * kQuad) add<R>(acc, a.q, columns, values);
            if (!quads) continue;
            // Absent quads read the first input and have weights of 0.
            uint16_t last_columns[step * kQuad] = {};
            int8_t last_values[step * R * kQuad] = {};
            std::memcpy(last_columns, columns, quads * kQuad * sizeof(uint16_t));
            std::memcpy(last_values, values, quads * R * kQuad);
            add<R>(acc, a.q, last_columns, last_values);
        }
        alignas(32) int32_t lanes[16];
        for (int t = 0; t < 2; ++t) _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 8 * t), acc[t]);
        constexpr int used = R == 16 ? 16 : 8;
        for (int r = 0; r < R; ++r) out[r] = lanes[r];
        for (int lane = R; lane < used; ++lane) out[lane % R] += lanes[lane];
    }
};

}  // namespace
}  // namespace lavolta
