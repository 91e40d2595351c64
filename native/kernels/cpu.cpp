// CPU detection. Compiled without instruction set flags, so that it runs on any machine.
#include "cpu.h"

#if defined(LAVOLTA_X86)
#include <cpuid.h>
#elif defined(LAVOLTA_ARM) && !defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__linux__)
#include <unistd.h>
#endif

namespace lavolta {

#if defined(LAVOLTA_X86)

namespace {

// AVX-VNNI, bit 4 of EAX of leaf 7, part 1: older compilers have no name for it.
bool vnni256() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

}  // namespace

bool cpu_has(Isa isa) {
    // The compiler's run-time check covers the operating system's register saving too.
    switch (isa) {
        case Isa::reference:
            return true;
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx_vnni:
            return cpu_has(Isa::avx2) && vnni256();
        case Isa::avx512_vnni:
            return cpu_has(Isa::avx512) && __builtin_cpu_supports("avx512vnni");
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
        default:
            return false;
    }
}

#elif defined(LAVOLTA_ARM)

bool cpu_has(Isa isa) {
    switch (isa) {
        case Isa::reference:
            return true;
        case Isa::neon:
#if defined(__aarch64__)
            return true;  // part of the architecture
#elif defined(__linux__)
            return (getauxval(AT_HWCAP) & (1ul << 12)) != 0;  // HWCAP_NEON of 32-bit Arm
#else
            return false;
#endif
        default:
            return false;
    }
}

#else

bool cpu_has(Isa isa) { return isa == Isa::reference; }

#endif

size_t first_level_cache_bytes() {
    long bytes = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
#endif
    return bytes > 0 ? static_cast<size_t>(bytes) : size_t{32} << 10;
}

}  // namespace lavolta
