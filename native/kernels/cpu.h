// What the CPU and the operating system allow.
#pragma once

#include "kernels.h"

namespace lavolta {

// The CPU runs it; false for instruction sets of other processor families.
bool cpu_has(Isa isa);

}  // namespace lavolta
