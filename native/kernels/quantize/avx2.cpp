// Per-token quantization of activations to bytes, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {
namespace {

struct Pack256 : Avx2 {
    using Int = __m256i;

    static Int zero_bits() { return _mm256_setzero_si256(); }
    // The larger magnitude, as bits: NaN is the largest.
    static Int max_magnitude(Int largest, const float* p) {
        const Int bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return _mm256_max_epi32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)));
    }
    static Reg as_float(Int bits) { return _mm256_castsi256_ps(bits); }
    static Int round_to_int(Reg v) { return _mm256_cvtps_epi32(v); }
    // In each 128-bit lane: four of a, of b, of c, of d.
    static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
        const Int bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        const Int zero = _mm256_set1_epi8(static_cast<char>(kQuantZero));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_xor_si256(bytes, zero));
    }
    static void store_narrow(uint8_t* to, const Int* q) {
        // Packing leaves tokens 0-3, 8-11, 4-7, 12-15.
        const Int words = _mm256_permute4x64_epi64(_mm256_packs_epi32(q[0], q[1]), _MM_SHUFFLE(3, 1, 2, 0));
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        const __m128i zero = _mm_set1_epi8(static_cast<char>(kQuantZero));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_xor_si128(bytes, zero));
    }
};

}  // namespace

void quantize_avx2(const QuantizeArgs& a) { quantize<Pack256>(a); }

}  // namespace lavolta
