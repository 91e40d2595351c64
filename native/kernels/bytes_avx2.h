// Int8 products on 32 bytes: AVX2, and AVX-VNNI where it is compiled for. Included by files with those flags only.
#pragma once

#include "kernels.h"
#include "simd_avx2.h"

namespace lavolta {
namespace {

struct Bytes256 {
    using Float = Avx2;
    using Reg = __m256i;
    static constexpr size_t width = 32;  // bytes
    static constexpr int zero = kQuantZero;  // of the inputs that `dot` takes

    static Reg load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static Reg set1(int32_t v) { return _mm256_set1_epi32(v); }
    static Reg add(Reg a, Reg b) { return _mm256_add_epi32(a, b); }
    static Reg lo8(Reg a, Reg b) { return _mm256_unpacklo_epi8(a, b); }
    static Reg hi8(Reg a, Reg b) { return _mm256_unpackhi_epi8(a, b); }
    static Reg lo16(Reg a, Reg b) { return _mm256_unpacklo_epi16(a, b); }
    static Reg hi16(Reg a, Reg b) { return _mm256_unpackhi_epi16(a, b); }
    // Quads of the 8 tokens at four places of narrow rows.
    static Reg narrow(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
        const auto half = [](const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); };
        const __m128i ab = _mm_unpacklo_epi8(half(a), half(b)), cd = _mm_unpacklo_epi8(half(c), half(d));
        return _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd));
    }
    static __m256 to_float(Reg a) { return _mm256_cvtepi32_ps(a); }
};

// Without a dot product of bytes: two products of 16-bit pairs, which cannot overflow (vpmaddubsw saturates).
struct Madd256 : Bytes256 {
    struct Inputs {
        Reg even, odd;  // bytes 0 and 2, 1 and 3 of every quad, as 16-bit numbers
    };
    using Weights = Inputs;

    static Inputs inputs(Reg quads) {
        return {_mm256_and_si256(quads, _mm256_set1_epi16(0xFF)), _mm256_srli_epi16(quads, 8)};
    }
    static Weights weights(int32_t quad) {
        const Reg w = set1(quad);
        return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
    }
    static Reg dot(Reg sum, Inputs x, Weights w) {
        const Reg products = _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
        return _mm256_add_epi32(sum, products);
    }
};

#if defined(__AVXVNNI__)
struct Vnni256 : Bytes256 {
    using Inputs = Reg;
    using Weights = Reg;

    static Inputs inputs(Reg quads) { return quads; }
    static Weights weights(int32_t quad) { return set1(quad); }
    static Reg dot(Reg sum, Inputs x, Weights w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
};
#endif

}  // namespace
}  // namespace lavolta
