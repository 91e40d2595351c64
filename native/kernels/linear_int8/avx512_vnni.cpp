// Linear layers on int8 quads, AVX-512 VNNI.
#include "../bytes_avx512.h"
#include "simd.h"

namespace lavolta {

void linear_int8_avx512_vnni(const LinearInt8Args& a) { linear_int8<Vnni512>(a); }

}  // namespace lavolta
