// One token of a session, NEON.
#include "neon.h"

#include "simd.h"

namespace lavolta {

void token_linear_neon(const TokenLinearArgs& a) { token_linear<TokenNeon>(a); }
void token_linear_int8_neon(const TokenLinearInt8Args& a) { token_linear_int8<TokenWidening>(a); }
void token_quantize_neon(const TokenQuantizeArgs& a) { token_quantize<TokenNeon>(a); }
void token_dense_neon(const TokenDenseArgs& a) { token_dense<TokenNeon>(a); }
void token_norm_neon(const TokenNormArgs& a) { token_norm<TokenNeon>(a); }

}  // namespace lavolta
