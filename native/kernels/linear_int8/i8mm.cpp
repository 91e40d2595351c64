// Linear layers on int8 quads, the dot product of i8mm.
#include "../bytes_neon.h"
#include "simd.h"

namespace lavolta {

void linear_int8_i8mm(const LinearInt8Args& a) { linear_int8<MixedDot>(a); }

}  // namespace lavolta
