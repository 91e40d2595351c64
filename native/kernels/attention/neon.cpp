// Attention, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void attention_neon(const AttentionArgs& a) { attention<Neon>(a); }

}  // namespace lavolta
