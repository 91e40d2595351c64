// Rotary positions, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void rotate_neon(const RotateArgs& a) { rotate<Neon>(a); }

}  // namespace lavolta
