// LayerNorm and RMSNorm, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void norm_avx2(const NormArgs& a) { norm<Avx2>(a); }

}  // namespace lavolta
