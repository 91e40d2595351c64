// One token of a session, AVX2.
#include "avx2.h"

#include "simd.h"

namespace lavolta {

void token_linear_avx2(const TokenLinearArgs& a) { token_linear<TokenAvx2>(a); }
void token_linear_int8_avx2(const TokenLinearInt8Args& a) { token_linear_int8<TokenBytes256>(a); }
void token_quantize_avx2(const TokenQuantizeArgs& a) { token_quantize<TokenAvx2>(a); }
void token_dense_avx2(const TokenDenseArgs& a) { token_dense<TokenAvx2>(a); }
void token_norm_avx2(const TokenNormArgs& a) { token_norm<TokenAvx2>(a); }

}  // namespace lavolta
