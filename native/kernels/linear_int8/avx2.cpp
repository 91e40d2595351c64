// Linear layers on int8 quads, AVX2.
#include "../bytes_avx2.h"
#include "simd.h"

namespace lavolta {

namespace {

// So few tokens meet a weight less often than it costs to copy it and make it harmless; the sign of an input is cheaper.
constexpr size_t kSignedTokens = 32;

}  // namespace

void linear_int8_avx2(const LinearInt8Args& a) {
    a.token_end - a.token_begin <= kSignedTokens ? linear_int8<Signed256>(a) : linear_int8<Saturating256>(a);
}

}  // namespace lavolta
