// Linear layers, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void linear_neon(const LinearArgs& a) { linear<Neon>(a); }

void dense_neon(const DenseArgs& a) { dense<Neon>(a); }

}  // namespace lavolta
