// Peak of products of bytes, dot product.
#include "neon.h"

namespace lavolta {

uint64_t peak_int8_dotprod(uint64_t rounds) { return peak_int8<SignedDot>(rounds); }

}  // namespace lavolta
