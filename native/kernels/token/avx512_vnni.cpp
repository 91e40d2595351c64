// Int8 layers of one token of a session, AVX-512 VNNI.
#include "avx512.h"

#include "simd.h"

namespace lavolta {

void token_linear_int8_avx512_vnni(const TokenLinearInt8Args& a) { token_linear_int8<TokenVnni512>(a); }

}  // namespace lavolta
