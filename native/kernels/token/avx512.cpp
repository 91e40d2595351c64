// One token of a session, AVX-512; bytes without a dot product of their own are left to AVX2.
#include "avx512.h"

#include "simd.h"

namespace lavolta {

void token_linear_avx512(const TokenLinearArgs& a) { token_linear<TokenAvx512>(a); }
void token_quantize_avx512(const TokenQuantizeArgs& a) { token_quantize<TokenAvx512>(a); }
void token_dense_avx512(const TokenDenseArgs& a) { token_dense<TokenAvx512>(a); }
void token_norm_avx512(const TokenNormArgs& a) { token_norm<TokenAvx512>(a); }

}  // namespace lavolta
