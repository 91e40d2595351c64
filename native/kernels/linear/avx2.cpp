// Linear layers, AVX2.
#include "../simd_avx2.h"
#include "few.h"
#include "simd.h"

namespace lavolta {

void linear_avx2(const LinearArgs& a) { is_few(a) ? linear_few<Avx2>(a) : linear<Avx2>(a); }

void dense_avx2(const DenseArgs& a) { dense<Avx2>(a); }

size_t linear_bytes_avx2(uint32_t cell_rows) { return linear_bytes<Avx2>(cell_rows); }

}  // namespace lavolta
