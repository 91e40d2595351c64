// What the CPU and the operating system allow.
#pragma once

#include "kernels.h"

namespace lavolta {

// The CPU runs it; false for instruction sets of other processor families.
bool cpu_has(Isa isa);

// Bytes of a core's first-level data cache; 32 KiB where the system does not tell.
size_t first_level_cache_bytes();

}  // namespace lavolta
