// The most multiply-adds that one thread of this machine does in a second: what kernels are measured against.
#pragma once

#include "kernels.h"

namespace lavolta {

// 10^9 fp32 operations a second (a multiply-add is two) with the registers of one instruction set, in the fastest of many
// short rounds: a round that was interrupted says nothing about the machine. Takes about 30 ms.
double measured_peak_gflops(Isa isa);

}  // namespace lavolta
