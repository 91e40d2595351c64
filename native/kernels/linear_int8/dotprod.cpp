// Linear layers on int8 quads, dot product.
#include "../bytes_neon.h"
#include "simd.h"

namespace lavolta {

void linear_int8_dotprod(const LinearInt8Args& a) { linear_int8<SignedDot>(a); }

}  // namespace lavolta
