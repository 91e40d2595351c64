// Why an op runs the kernel that it runs.
#pragma once

#include <string>

#include "kernels.h"

namespace lavolta {

// What kept a faster kernel of this build from running: the CPU, or the caller's limit. `op` is a name of LAVOLTA_OPS.
std::string kernel_reason(const char* op, Isa chosen, Isa limit);

}  // namespace lavolta
