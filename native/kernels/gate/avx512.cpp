// Gated activations, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void gate_avx512(const GateArgs& a) { gate<Avx512>(a); }

}  // namespace lavolta
