// Rotary positions, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void rotate_avx2(const RotateArgs& a) { rotate<Avx2>(a); }

}  // namespace lavolta
