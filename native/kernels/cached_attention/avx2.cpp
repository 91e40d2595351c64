// Attention of new tokens over a cache, AVX2.
#include "../simd_avx2.h"
#include "simd.h"

namespace lavolta {

void cached_attention_avx2(const CachedAttentionArgs& a) { cached_attention<Avx2>(a); }

}  // namespace lavolta
