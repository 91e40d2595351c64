// CPU detection. Compiled without instruction set flags, so that it runs on any machine.
#include "cpu.h"

#if defined(LAVOLTA_X86)
#include <cpuid.h>
#endif

namespace lavolta {
namespace {

#if defined(LAVOLTA_X86)
// AVX-VNNI, bit 4 of EAX of leaf 7, part 1: older compilers have no name for it.
bool vnni256() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

}  // namespace

bool cpu_has(Isa isa) {
    switch (isa) {
        case Isa::reference:
            return true;
#if defined(LAVOLTA_X86)
        // The compiler's run-time check covers the operating system's register saving too.
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx_vnni:
            return cpu_has(Isa::avx2) && vnni256();
        case Isa::avx512_vnni:
            return cpu_has(Isa::avx512) && __builtin_cpu_supports("avx512vnni");
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
        case Isa::avx2:
        case Isa::avx_vnni:
        case Isa::avx512:
        case Isa::avx512_vnni:
            return false;
#endif
    }
    return false;
}

}  // namespace lavolta
