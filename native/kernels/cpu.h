// What the CPU and the operating system allow.
#pragma once

#include "kernels.h"

namespace lavolta {

bool cpu_has(Isa isa);

}  // namespace lavolta
