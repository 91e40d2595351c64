// Eight floats in a register: AVX2 and FMA. Included by files that are compiled with those flags only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lavolta {
namespace {

struct Avx2 {
    using Reg = __m256;
    static constexpr size_t width = 8;
    static constexpr int registers = 16;
    static constexpr bool multiplies_lanes = false;

    static __m256i first_lanes(size_t count) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(count >= 8 ? 8 : static_cast<int>(count)), lanes);
    }

    // Leading columns of `columns` that are in [low, low + width), at most `count`.
    static uint32_t columns_within(const uint16_t* columns, uint32_t count, uint32_t low, uint32_t width) {
        const __m256i lows = _mm256_set1_epi16(static_cast<short>(low));
        const __m256i last = _mm256_set1_epi16(static_cast<short>(width - 1));
        // Of sixteen columns two bits each, set where one is out.
        const auto out = [&](uint32_t at) {
            const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns + at));
            const __m256i offsets = _mm256_sub_epi16(sixteen, lows);
            const __m256i within = _mm256_cmpeq_epi16(_mm256_min_epu16(offsets, last), offsets);
            return ~static_cast<uint32_t>(_mm256_movemask_epi8(within));
        };
        uint32_t i = 0;
        for (; i + 16 <= count; i += 16) {
            if (const uint32_t bits = out(i)) return i + static_cast<uint32_t>(__builtin_ctz(bits)) / 2;
        }
        if (i < count && count >= 16) {
            // The last sixteen once more, since those before i are in.
            const uint32_t bits = out(count - 16);
            return bits ? count - 16 + static_cast<uint32_t>(__builtin_ctz(bits)) / 2 : count;
        }
        while (i < count && columns[i] - low < width) ++i;
        return i;
    }

    static Reg load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
    static void store_first(float* p, Reg v, size_t count) { _mm256_maskstore_ps(p, first_lanes(count), v); }
    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg set1(float v) { return _mm256_set1_ps(v); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }    // a * b + c
    static Reg fnma(Reg a, Reg b, Reg c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
    static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
    static Reg sqrt(Reg a) { return _mm256_sqrt_ps(a); }
    // The second operand where one is NaN.
    static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
    static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
    static Reg round(Reg a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // a * 2^n for integral n, -126 <= n <= 127.
    static Reg scale2(Reg a, Reg n) {
        const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
        return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
    }
    // v where a >= b, else 0.
    static Reg where_ge(Reg a, Reg b, Reg v) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ), v); }
    // v, but 0 where a < b; v where one is NaN.
    static Reg unless_less(Reg a, Reg b, Reg v) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ), v); }
    // a with the sign of b.
    static Reg copysign(Reg a, Reg b) {
        const Reg sign = _mm256_set1_ps(-0.0f);
        return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
    }
    static Reg abs(Reg a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    // `other` in the first `count` lanes, v in the rest.
    static Reg replace_first(Reg v, Reg other, size_t count) {
        return _mm256_blendv_ps(v, other, _mm256_castsi256_ps(first_lanes(count)));
    }
};

}  // namespace
}  // namespace lavolta
