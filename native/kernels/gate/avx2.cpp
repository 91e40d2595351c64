// Gated activations, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void gate_avx2(const GateArgs& a) { gate<Avx2>(a); }

}  // namespace lavolta
