// Sixteen floats in a register: AVX-512 F, VL, BW, DQ. Included by files that are compiled with those flags only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace lavolta {
namespace {

struct Avx512 {
    using Reg = __m512;
    static constexpr size_t width = 16;
    static constexpr int registers = 32;
    static constexpr bool multiplies_lanes = false;

    // Leading columns of `columns` that are in [low, low + width), at most `count`.
    static uint32_t columns_within(const uint16_t* columns, uint32_t count, uint32_t low, uint32_t width) {
        const __m512i lows = _mm512_set1_epi16(static_cast<short>(low));
        const __m512i widths = _mm512_set1_epi16(static_cast<short>(width));
        for (uint32_t i = 0; i < count; i += 32) {
            const __mmask32 there = count - i >= 32 ? ~__mmask32{0} : (__mmask32{1} << (count - i)) - 1;
            const __m512i offsets = _mm512_sub_epi16(_mm512_maskz_loadu_epi16(there, columns + i), lows);
            const __mmask32 within = _mm512_mask_cmplt_epu16_mask(there, offsets, widths);
            if (within != ~__mmask32{0}) return i + static_cast<uint32_t>(__builtin_ctz(~within));
        }
        return count;
    }

    static Reg load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
    static void store_first(float* p, Reg v, size_t count) {
        _mm512_mask_storeu_ps(p, count >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << count) - 1), v);
    }
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg set1(float v) { return _mm512_set1_ps(v); }
    static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
    static Reg fnma(Reg a, Reg b, Reg c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
    static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
    static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
    static Reg sqrt(Reg a) { return _mm512_sqrt_ps(a); }
    // The second operand where one is NaN.
    static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
    static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
    static Reg round(Reg a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    // a * 2^n for integral n, -126 <= n <= 127.
    static Reg scale2(Reg a, Reg n) { return _mm512_scalef_ps(a, n); }
    // v where a >= b, else 0.
    static Reg where_ge(Reg a, Reg b, Reg v) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), v); }
    // v, but 0 where a < b; v where one is NaN.
    static Reg unless_less(Reg a, Reg b, Reg v) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), v); }
    // table[low 5 bits of index] of 32 numbers.
    static Reg lookup(const float* table, Reg index) {
        return _mm512_permutex2var_ps(_mm512_loadu_ps(table), _mm512_castps_si512(index), _mm512_loadu_ps(table + 16));
    }
    // a with the sign of b.
    static Reg copysign(Reg a, Reg b) {
        const Reg sign = _mm512_set1_ps(-0.0f);
        return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
    }
    static Reg abs(Reg a) { return _mm512_abs_ps(a); }
    // `other` in the first `count` lanes, v in the rest.
    static Reg replace_first(Reg v, Reg other, size_t count) {
        return _mm512_mask_mov_ps(v, count >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << count) - 1), other);
    }
};

}  // namespace
}  // namespace lavolta
