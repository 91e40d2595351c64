// Gated activations, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void gate_neon(const GateArgs& a) { gate<Neon>(a); }

}  // namespace lavolta
