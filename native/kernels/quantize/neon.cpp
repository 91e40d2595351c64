// Per-token quantization of activations to bytes, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {
namespace {

struct Pack128 : Neon {
    using Int = int32x4_t;

    static Int zero_bits() { return vdupq_n_s32(0); }
    // The larger magnitude, as bits: NaN is the largest.
    static Int max_magnitude(Int largest, const float* p) {
        const Int bits = vreinterpretq_s32_f32(vld1q_f32(p));
        return vmaxq_s32(largest, vandq_s32(bits, vdupq_n_s32(0x7FFFFFFF)));
    }
    static Reg as_float(Int bits) { return vreinterpretq_f32_s32(bits); }
#if defined(__aarch64__)
    static Int round_to_int(Reg v) { return vcvtnq_s32_f32(v); }
#else
    static Int round_to_int(Reg v) { return vcvtq_s32_f32(round(v)); }
    // Exact, unlike that of Neon: every instruction set must find the same scale.
    static Reg div(Reg a, Reg b) {
        float x[4], y[4];
        vst1q_f32(x, a);
        vst1q_f32(y, b);
        for (int i = 0; i < 4; ++i) x[i] /= y[i];
        return vld1q_f32(x);
    }
#endif
    // Four of a, of b, of c, of d.
    static void store_bytes(uint8_t* to, Int a, Int b, Int c, Int d) {
        const int16x8_t ab = vcombine_s16(vmovn_s32(a), vmovn_s32(b)), cd = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
        const int8x16_t bytes = vcombine_s8(vmovn_s16(ab), vmovn_s16(cd));
        vst1q_u8(to, veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(kQuantZero)));
    }
    // 16 neighboring tokens.
    static void store_narrow(uint8_t* to, const Int* q) { store_bytes(to, q[0], q[1], q[2], q[3]); }
};

}  // namespace

void quantize_neon(const QuantizeArgs& a) { quantize<Pack128>(a); }

}  // namespace lavolta
