// Peak of products of bytes, AVX-512.
#include "../bytes_avx512.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_int8_avx512(uint64_t rounds) { return peak_int8<Madd512>(rounds); }

}  // namespace lavolta
