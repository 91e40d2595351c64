// Peak of products of bytes, NEON.
#include "neon.h"

namespace lavolta {

uint64_t peak_int8_neon(uint64_t rounds) { return peak_int8<Widening>(rounds); }

}  // namespace lavolta
