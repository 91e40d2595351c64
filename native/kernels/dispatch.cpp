// Which kernel runs: the table, filtered by the CPU and by the caller's limit. Compiled without instruction set flags.
#include "cpu.h"
#include "kernels.h"

namespace lavolta {

#define LAVOLTA_OP(op, type) using op##_kernel = type;
LAVOLTA_OPS(LAVOLTA_OP)
#undef LAVOLTA_OP

#define LAVOLTA_KERNEL(op, isa) op##_kernel op##_##isa;
#include "table.inc"
#undef LAVOLTA_KERNEL

KernelSet select_kernels(Isa limit) {
    KernelSet set{};
    set.limit = limit;
#define LAVOLTA_KERNEL(op, isa)                            \
    if (Isa::isa <= limit && cpu_has(Isa::isa)) {          \
        set.op = op##_##isa;                               \
        set.op##_isa = Isa::isa;                           \
    }
#include "table.inc"
#undef LAVOLTA_KERNEL
    return set;
}

bool isa_built(Isa isa) {
#define LAVOLTA_KERNEL(op, of) \
    if (isa == Isa::of) return true;
#include "table.inc"
#undef LAVOLTA_KERNEL
    return false;
}

const char* isa_name(Isa isa) {
    static const char* const names[kIsaCount] = {
#define LAVOLTA_ISA(isa) #isa,
        LAVOLTA_ISAS(LAVOLTA_ISA)
#undef LAVOLTA_ISA
    };
    return names[static_cast<int>(isa)];
}

}  // namespace lavolta
