// Per-token quantization of activations to bytes, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {
namespace {

struct Pack512 : Avx512 {
    using Int = __m512i;

    static Int zero_bits() { return _mm512_setzero_si512(); }
    // The larger magnitude, as bits: NaN is the largest.
    static Int max_magnitude(Int largest, const float* p) {
        return _mm512_max_epi32(largest, _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(0x7FFFFFFF)));
    }
    static Reg as_float(Int bits) { return _mm512_castsi512_ps(bits); }
    static Int round_to_int(Reg v) { return _mm512_cvtps_epi32(v); }
    // In each 128-bit lane: four of a, of b, of c, of d.
    static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
        const Int bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        _mm512_storeu_si512(to, _mm512_xor_si512(bytes, _mm512_set1_epi8(static_cast<char>(kQuantZero))));
    }
    static void store_narrow(uint8_t* to, const Int* q) {
        const __m128i bytes = _mm_xor_si128(_mm512_cvtsepi32_epi8(q[0]), _mm_set1_epi8(static_cast<char>(kQuantZero)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    }
};

}  // namespace

void quantize_avx512(const QuantizeArgs& a) { quantize<Pack512>(a); }

}  // namespace lavolta
