// Linear layers on int8 quads, AVX2.
#include "../bytes_avx2.h"
#include "simd.h"

namespace lavolta {

void linear_int8_avx2(const LinearInt8Args& a) { linear_int8<Saturating256>(a); }

}  // namespace lavolta
