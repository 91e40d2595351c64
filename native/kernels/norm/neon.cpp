// LayerNorm and RMSNorm, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void norm_neon(const NormArgs& a) { norm<Neon>(a); }

}  // namespace lavolta
