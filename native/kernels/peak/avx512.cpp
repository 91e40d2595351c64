// Peak of multiply-adds, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_avx512(uint64_t rounds) { return peak<Avx512>(rounds); }

}  // namespace lavolta
