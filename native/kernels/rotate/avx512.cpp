// Rotary positions, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void rotate_avx512(const RotateArgs& a) { rotate<Avx512>(a); }

}  // namespace lavolta
