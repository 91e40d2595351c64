// CPU detection. Compiled without instruction set flags, so that it runs on any machine.
#include "cpu.h"

namespace lavolta {

bool cpu_has(Isa isa) {
    switch (isa) {
        case Isa::reference:
            return true;
#if defined(LAVOLTA_X86)
        // The compiler's run-time check covers the operating system's register saving too.
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
        case Isa::avx2:
        case Isa::avx512:
            return false;
#endif
    }
    return false;
}

}  // namespace lavolta
