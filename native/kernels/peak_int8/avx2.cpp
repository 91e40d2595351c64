// Peak of products of bytes, AVX2.
#include "../bytes_avx2.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_int8_avx2(uint64_t rounds) { return peak_int8<Saturating256>(rounds); }

}  // namespace lavolta
