// Linear layers, NEON.
#include "../simd_neon.h"
#include "simd.h"

namespace lavolta {

void linear_neon(const LinearArgs& a) { linear<Neon>(a); }

void dense_neon(const DenseArgs& a) { dense<Neon>(a); }

size_t linear_bytes_neon(uint32_t cell_rows) { return linear_bytes<Neon>(cell_rows); }

}  // namespace lavolta
