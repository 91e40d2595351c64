// Peak of multiply-adds, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_avx2(uint64_t rounds) { return peak<Avx2>(rounds); }

}  // namespace lavolta
