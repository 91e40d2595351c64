// Peak of products of bytes, AVX-VNNI.
#include "../bytes_avx2.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_int8_avx_vnni(uint64_t rounds) { return peak_int8<Vnni256>(rounds); }

}  // namespace lavolta
