// Which kernel runs: the table, filtered by the CPU and by the caller's limit. Compiled without instruction set flags.
#include "cpu.h"
#include "kernels.h"

namespace lavolta {

#define LAVOLTA_OP(op, type) using op##_kernel = type;
LAVOLTA_OPS(LAVOLTA_OP)
#undef LAVOLTA_OP

#define LAVOLTA_KERNEL(op, isa) op##_kernel op##_##isa;
#include "table_portable.inc"
#if defined(LAVOLTA_X86)
#include "table_x86.inc"
#endif
#undef LAVOLTA_KERNEL

KernelSet select_kernels(Isa limit) {
    KernelSet set{};
#define LAVOLTA_KERNEL(op, isa)                            \
    if (Isa::isa <= limit && cpu_has(Isa::isa)) {          \
        set.op = op##_##isa;                               \
        set.op##_isa = Isa::isa;                           \
    }
#include "table_portable.inc"
#if defined(LAVOLTA_X86)
#include "table_x86.inc"
#endif
#undef LAVOLTA_KERNEL
    return set;
}

const char* isa_name(Isa isa) {
    static const char* const names[kIsaCount] = {"reference", "avx2", "avx_vnni", "avx512", "avx512_vnni"};
    return names[static_cast<int>(isa)];
}

}  // namespace lavolta
