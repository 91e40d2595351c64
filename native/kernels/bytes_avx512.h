// Int8 products on 64 bytes: AVX-512 BW, and AVX-512 VNNI where it is compiled for. Included by files with those flags only.
#pragma once

#include "kernels.h"
#include "simd_avx512.h"

namespace lavolta {
namespace {

struct Bytes512 {
    using Float = Avx512;
    using Reg = __m512i;
    static constexpr size_t width = 64;  // bytes
    static constexpr int zero = kQuantZero;  // of the inputs that `dot` takes
    static constexpr bool saturates = false;

    static Reg load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static Reg set1(int32_t v) { return _mm512_set1_epi32(v); }
    static Reg add(Reg a, Reg b) { return _mm512_add_epi32(a, b); }
    static Reg lo8(Reg a, Reg b) { return _mm512_unpacklo_epi8(a, b); }
    static Reg hi8(Reg a, Reg b) { return _mm512_unpackhi_epi8(a, b); }
    static Reg lo16(Reg a, Reg b) { return _mm512_unpacklo_epi16(a, b); }
    static Reg hi16(Reg a, Reg b) { return _mm512_unpackhi_epi16(a, b); }
    // Quads of the 16 tokens of four narrow rows: their 4-byte pieces are transposed across lanes, then bytes inside each lane.
    static Reg narrow(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
        const auto row = [](const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
        Reg rows = _mm512_castsi128_si512(row(a));
        rows = _mm512_mask_broadcast_i32x4(rows, 0x00F0, row(b));
        rows = _mm512_mask_broadcast_i32x4(rows, 0x0F00, row(c));
        rows = _mm512_mask_broadcast_i32x4(rows, 0xF000, row(d));
        const Reg pieces = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        const Reg bytes = _mm512_set4_epi32(0x0F0B0703, 0x0E0A0602, 0x0D090501, 0x0C080400);
        return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(pieces, rows), bytes);
    }
    static __m512 to_float(Reg a) { return _mm512_cvtepi32_ps(a); }
};

// Without a dot product of bytes: two products of 16-bit pairs, which cannot overflow (vpmaddubsw saturates).
struct Madd512 : Bytes512 {
    struct Inputs {
        Reg even, odd;  // bytes 0 and 2, 1 and 3 of every quad, as 16-bit numbers
    };
    using Weights = Inputs;

    static Inputs inputs(Reg quads) {
        return {_mm512_and_si512(quads, _mm512_set1_epi16(0xFF)), _mm512_srli_epi16(quads, 8)};
    }
    static Weights weights(int32_t quad) {
        const Reg w = set1(quad);
        return {_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
    }
    static Reg dot(Reg sum, Inputs x, Weights w) {
        const Reg products = _mm512_add_epi32(_mm512_madd_epi16(x.even, w.even), _mm512_madd_epi16(x.odd, w.odd));
        return _mm512_add_epi32(sum, products);
    }
    static Reg add_weights(Reg sum, const int8_t* p) {
        const Reg pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), _mm512_loadu_si512(p));
        return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
};

#if defined(__AVX512VNNI__)
struct Vnni512 : Bytes512 {
    using Inputs = Reg;
    using Weights = Reg;

    static Inputs inputs(Reg quads) { return quads; }
    static Weights weights(int32_t quad) { return set1(quad); }
    static Reg dot(Reg sum, Inputs x, Weights w) { return _mm512_dpbusd_epi32(sum, x, w); }
    static Reg add_weights(Reg sum, const int8_t* p) { return dot(sum, _mm512_set1_epi8(1), _mm512_loadu_si512(p)); }
};
#endif

}  // namespace
}  // namespace lavolta
