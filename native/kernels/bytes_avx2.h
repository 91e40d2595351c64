// Int8 products on 32 bytes: AVX2, and AVX-VNNI where it is compiled for. Included by files with those flags only.
#pragma once

#include "linear_int8/unsaturated.h"
#include "simd_avx2.h"

namespace lavolta {
namespace {

struct Bytes256 {
    using Float = Avx2;
    using Reg = __m256i;
    static constexpr size_t width = 32;  // bytes
    static constexpr int zero = kQuantZero;  // of the inputs that `dot` takes
    static constexpr bool saturates = false;

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

// Without a dot product of bytes: two products are added in 16 bits, so weights must be made harmless.
struct Saturating256 : Bytes256 {
    using Inputs = Reg;
    using Weights = Reg;
    static constexpr bool saturates = true;

    static Inputs inputs(Reg quads) { return quads; }
    static Weights weights(int32_t quad) { return set1(quad); }
    static Reg dot(Reg sum, Inputs x, Weights w) {
        sum = add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
        // The compiler would add the products of two quads to each other first, and keep them where the sums are.
        __asm__("" : "+x"(sum));
        return sum;
    }
    static Reg load_sums(const float* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static void store_sums(float* p, Reg v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

    // Appends quads, `step` bytes from one to the next. A run is too short for a call of memcpy, and for its columns another.
    template <int R>
    static void append(HarmlessQuads<R>& part, const int8_t* values, size_t step, const uint16_t* columns, uint32_t count) {
        int8_t* to = part.values + part.quads * R * kQuad;
        uint32_t* to_columns = part.columns + part.quads * kQuad;
        static_assert(kNarrowBlock == 1 << 4, "what the shifts multiply by");
        uint32_t i = 0;
        if constexpr (R == 4) {
            // Two quads are a register of values, and of columns.
            for (; step == R * kQuad && i + 2 <= count; i += 2) {
                std::memcpy(to + i * step, values + i * step, sizeof(Reg));
                const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns + i * kQuad));
                _mm256_storeu_si256(reinterpret_cast<Reg*>(to_columns + i * kQuad), _mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 4));
            }
        }
        for (; i < count; ++i) {
            std::memcpy(to + i * R * kQuad, values + i * step, R * kQuad);
            const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns + i * kQuad));
            _mm_store_si128(reinterpret_cast<__m128i*>(to_columns + i * kQuad), _mm_slli_epi32(_mm_cvtepu16_epi32(four), 4));
        }
        part.quads += count;
    }

    // begin: minus 128 times the sum of each row's values.
    template <int R>
    static void make_harmless(HarmlessQuads<R>& part, int32_t (&begin)[4]) {
        constexpr uint32_t step = 8 / R;  // quads of a register
        const Reg zero = _mm256_setzero_si256(), most = _mm256_set1_epi16(kMostOfASign);
        const Reg ones = _mm256_set1_epi8(1), pair_ones = _mm256_set1_epi16(1);
        Reg sums = zero;
        _mm256_storeu_si256(reinterpret_cast<Reg*>(part.values + part.quads * R * kQuad), zero);
        // From the last register, which is not full, to the first: what is cut off goes behind the quads, and is not read again.
        for (uint32_t left = (part.quads + step - 1) / step; left > 0; --left) {
            const uint32_t quad = (left - 1) * step;
            Reg* at = reinterpret_cast<Reg*>(part.values + quad * R * kQuad);
            const Reg w = _mm256_load_si256(at);
            const Reg of_pairs = _mm256_maddubs_epi16(ones, w);
            sums = add(sums, _mm256_madd_epi16(of_pairs, pair_ones));
            // Weights of unlike signs never come so far.
            const Reg large = _mm256_cmpgt_epi16(_mm256_abs_epi16(of_pairs), most);
            if (__builtin_expect(_mm256_testz_si256(large, large), 1)) continue;
            const Reg first = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), second = _mm256_srai_epi16(w, 8);
            // A weight of the other sign may have any size.
            const Reg above = _mm256_min_epi16(second, _mm256_sub_epi16(most, first));
            const Reg below = _mm256_max_epi16(second, _mm256_sub_epi16(_mm256_sub_epi16(zero, most), first));
            const Reg kept = _mm256_blendv_epi8(above, below, _mm256_srai_epi16(first, 15));
            const Reg off = _mm256_sub_epi16(second, kept);
            _mm256_store_si256(at, _mm256_blendv_epi8(w, _mm256_slli_epi16(kept, 8), _mm256_set1_epi16(-256)));
            alignas(32) int8_t off_bytes[32];
            _mm256_store_si256(reinterpret_cast<Reg*>(off_bytes), off);
            // Two bits for each pair of each row.
            uint32_t pairs = ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi16(off, zero)));
            while (pairs) {
                const uint32_t bit = static_cast<uint32_t>(__builtin_ctz(pairs));
                const uint32_t index = bit / (4 * R), pair = bit / 2 % 2;
                part.cut(quad + index, pair, off_bytes + index * R * kQuad + 2 * pair);
                // The pair is done for all rows.
                constexpr uint32_t rows = R == 4 ? 0x3333u : R == 2 ? 0x33u : 0x3u;
                pairs &= ~(rows << (index * 4 * R + pair * 2));
            }
        }
        part.close();
        // Lanes are rows, of several quads where R is below 8.
        __m128i of_rows = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        if constexpr (R <= 2) of_rows = _mm_add_epi32(of_rows, _mm_shuffle_epi32(of_rows, 0x4E));
        if constexpr (R == 1) of_rows = _mm_add_epi32(of_rows, _mm_shuffle_epi32(of_rows, 0xB1));
        of_rows = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(of_rows, 7));
        _mm_store_si128(reinterpret_cast<__m128i*>(begin), of_rows);
        static_assert(kQuantZero == 1 << 7, "what the shift multiplies by");
    }
};

// The same for weights as they are: two products of magnitudes up to 127 fit in 16 bits, and the sign of an input goes to the
// weight, an instruction more for every register of products.
struct Signed256 : Bytes256 {
    struct Inputs {
        Reg magnitude, q;
    };
    using Weights = Reg;
    static constexpr int zero = 0;

    static Inputs inputs(Reg quads) {
        const Reg q = _mm256_xor_si256(quads, _mm256_set1_epi8(static_cast<char>(kQuantZero)));
        return {_mm256_abs_epi8(q), q};
    }
    static Weights weights(int32_t quad) { return set1(quad); }
    static Reg dot(Reg sum, Inputs x, Weights w) {
        const Reg pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_sign_epi8(w, x.q));
        return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
};

#if defined(__AVXVNNI__)
struct Vnni256 : Bytes256 {
    using Inputs = Reg;
    using Weights = Reg;

    static Inputs inputs(Reg quads) { return quads; }
    static Weights weights(int32_t quad) { return set1(quad); }
    static Reg dot(Reg sum, Inputs x, Weights w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
    static Reg add_weights(Reg sum, const int8_t* p) {
        return dot(sum, _mm256_set1_epi8(1), _mm256_loadu_si256(reinterpret_cast<const Reg*>(p)));
    }
};
#endif

}  // namespace
}  // namespace lavolta
