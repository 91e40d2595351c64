// Attention of new tokens over a cache, AVX-512.
#include "../simd_avx512.h"
#include "simd.h"

namespace lavolta {

void cached_attention_avx512(const CachedAttentionArgs& a) { cached_attention<Avx512>(a); }

}  // namespace lavolta
