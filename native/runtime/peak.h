// The most multiply-adds that one thread of this machine does in a second: what kernels are measured against.
#pragma once

#include "kernels.h"

namespace lavolta {

// 10^9 fp32 operations a second (a multiply-add is two) with the registers of one instruction set, in the fastest of many
// short rounds: a round that was interrupted says nothing about the machine. Takes about 30 ms.
double measured_peak_gflops(Isa isa);

// The same for products of bytes, 10^9 operations a second.
double measured_peak_int8_gops(Isa isa);

// Operations a nanosecond that the kernels of `isa` could do at most, measured once in a process; 0 where this build has no
// measurement with the same instructions.
double known_peak(bool int8, Isa isa);

}  // namespace lavolta
