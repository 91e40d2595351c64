// Peak of multiply-adds, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

uint64_t peak_neon(uint64_t rounds) { return peak<Neon>(rounds); }

}  // namespace lavolta
