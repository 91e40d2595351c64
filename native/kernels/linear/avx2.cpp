// Linear layers, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void linear_avx2(const LinearArgs& a) { linear<Avx2>(a); }

void dense_avx2(const DenseArgs& a) { dense<Avx2>(a); }

}  // namespace lavolta
