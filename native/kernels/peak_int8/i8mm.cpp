// Peak of products of bytes, the dot product of i8mm.
#include "neon.h"

namespace lavolta {

uint64_t peak_int8_i8mm(uint64_t rounds) { return peak_int8<MixedDot>(rounds); }

}  // namespace lavolta
