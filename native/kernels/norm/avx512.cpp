// LayerNorm and RMSNorm, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void norm_avx512(const NormArgs& a) { norm<Avx512>(a); }

}  // namespace lavolta
