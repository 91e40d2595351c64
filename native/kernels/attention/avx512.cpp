// Attention, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void attention_avx512(const AttentionArgs& a) { attention<Avx512>(a); }

}  // namespace lavolta
