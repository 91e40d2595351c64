// Activations, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void activation_avx512(const ActivationArgs& a) { activation<Avx512>(a); }

}  // namespace lavolta
