// Linear layers on int8 quads, AVX-512.
#include "../bytes_avx512.h"
#include "simd.h"

namespace lavolta {

void linear_int8_avx512(const LinearInt8Args& a) { linear_int8<Madd512>(a); }

}  // namespace lavolta
