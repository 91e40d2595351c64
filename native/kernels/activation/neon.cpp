// Activations, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void activation_neon(const ActivationArgs& a) { activation<Neon>(a); }

}  // namespace lavolta
