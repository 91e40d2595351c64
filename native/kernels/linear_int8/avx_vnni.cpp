// Linear layers on int8 quads, AVX-VNNI.
#include "../bytes_avx2.h"
#include "simd.h"

namespace lavolta {

void linear_int8_avx_vnni(const LinearInt8Args& a) { linear_int8<Vnni256>(a); }

}  // namespace lavolta
