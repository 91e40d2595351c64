// What one token needs of AVX2 beside the arithmetic. Included by files that are compiled with those flags only.
#pragma once

#include <cstring>

#include "../kernels.h"
#include "../simd_avx2.h"
#include "ahead.h"

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
};

// Sums of quads: |q| times the weights with the sign of q, in pairs that stay below 2^15.
struct TokenBytes256 {
    using Float = TokenAvx2;

    // Bytes of the inputs of two quads, one after another: loads of single bytes are faster here than a gather of eight numbers.
    static uint64_t eight_bytes(const int32_t* q, const uint16_t* columns) {
        uint64_t bytes = 0;
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            uint8_t lowest;
            std::memcpy(&lowest, q + columns[i], 1);
            bytes |= uint64_t{lowest} << (8 * i);
        }
        return bytes;
    }
    // The first quad in all lanes of the lower half, the second in all of the upper.
    static __m256i inputs(const int32_t* q, const uint16_t* columns) {
        const __m256i both = _mm256_set1_epi64x(static_cast<long long>(eight_bytes(q, columns)));
        const __m256i places = _mm256_setr_epi64x(0x0302010003020100, 0x0302010003020100, 0x0706050407060504, 0x0706050407060504);
        return _mm256_shuffle_epi8(both, places);
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
            const uint64_t bytes = eight_bytes(q, columns);
            const __m256i first = _mm256_set1_epi32(static_cast<int>(bytes)), second = _mm256_set1_epi32(static_cast<int>(bytes >> 32));
#pragma GCC unroll 2
            for (int t = 0; t < R / 8; ++t) {
                acc[t] = dot(acc[t], first, load(values + t * 32));
                acc[t] = dot(acc[t], second, load(values + R * kQuad + t * 32));
            }
        } else if constexpr (R == 4) {
            acc[0] = dot(acc[0], inputs(q, columns), load(values));
        } else {
            // Each quad of a step has one lane, or two. Pairs of quads are joined in registers: bytes in memory would have to wait.
            const auto four = [&](const uint16_t* from) {
                const __m128i low = _mm_cvtsi64_si128(static_cast<long long>(eight_bytes(q, from)));
                return _mm_insert_epi64(low, static_cast<long long>(eight_bytes(q, from + 8)), 1);
            };
            if constexpr (R == 2) {
                const __m256i quads = _mm256_permute4x64_epi64(_mm256_castsi128_si256(four(columns)), 0x50);
                acc[0] = dot(acc[0], _mm256_shuffle_epi32(quads, 0x50), load(values));
            } else {
                acc[0] = dot(acc[0], _mm256_set_m128i(four(columns + 16), four(columns)), load(values));
            }
        }
    }

    template <int R>
    static void sums(const int32_t* q, const int8_t* values, const uint16_t* columns, size_t quads, int32_t (&out)[R]) {
        constexpr size_t step = R >= 4 ? 2 : 8 / R;
        __m256i acc[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (; quads >= step; quads -= step, columns += step * kQuad, values += step * R * kQuad) {
            fetch_ahead<step * R * kQuad>(values);
            add<R>(acc, q, columns, values);
        }
        if (quads) {
            // Absent quads read the first input and have weights of 0.
            const size_t last = step == 2 ? 1 : quads;
            uint16_t last_columns[step * kQuad] = {};
            int8_t last_values[step * R * kQuad] = {};
            std::memcpy(last_columns, columns, last * kQuad * sizeof(uint16_t));
            std::memcpy(last_values, values, last * R * kQuad);
            add<R>(acc, q, last_columns, last_values);
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
