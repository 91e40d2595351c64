// Linear layers on int8 quads, NEON.
#include "../bytes_neon.h"
#include "simd.h"

namespace lavolta {

void linear_int8_neon(const LinearInt8Args& a) { linear_int8<Widening>(a); }

}  // namespace lavolta
