// Attention of new tokens over a cache, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void cached_attention_neon(const CachedAttentionArgs& a) { cached_attention<Neon>(a); }

}  // namespace lavolta
