// Activations, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void activation_avx2(const ActivationArgs& a) { activation<Avx2>(a); }

}  // namespace lavolta
