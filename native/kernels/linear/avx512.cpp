// Linear layers, AVX-512.
#include "../simd_avx512.h"
#include "few.h"
#include "simd.h"

namespace lavolta {

void linear_avx512(const LinearArgs& a) { is_few(a) ? linear_few<Avx512>(a) : linear<Avx512>(a); }

void dense_avx512(const DenseArgs& a) { dense<Avx512>(a); }

size_t linear_bytes_avx512(uint32_t cell_rows) { return linear_bytes<Avx512>(cell_rows); }

}  // namespace lavolta
