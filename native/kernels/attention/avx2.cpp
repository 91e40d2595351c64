// Attention, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void attention_avx2(const AttentionArgs& a) { attention<Avx2>(a); }

}  // namespace lavolta
