// Int8 layers of one token of a session, NEON with dot products of bytes.
#include "neon.h"

#include "simd.h"

namespace lavolta {

void token_linear_int8_dotprod(const TokenLinearInt8Args& a) { token_linear_int8<TokenDot>(a); }

}  // namespace lavolta
