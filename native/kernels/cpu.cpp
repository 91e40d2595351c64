// CPU detection. Compiled without instruction set flags, so that it runs on any machine.
#include "cpu.h"

#if defined(LAVOLTA_X86)
#include <cpuid.h>
#elif defined(LAVOLTA_ARM) && defined(__linux__)
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

namespace {

// A bit of the capabilities that Linux tells a program; false on other systems.
bool capability(unsigned long vector, int bit) {
#if defined(__linux__)
    return getauxval(vector) >> bit & 1;
#else
    static_cast<void>(vector);
    static_cast<void>(bit);
    return false;
#endif
}

}  // namespace

bool cpu_has(Isa isa) {
    // The names and numbers of Linux's <asm/hwcap.h>, which differ between the two architectures and which older headers lack.
    constexpr unsigned long at_hwcap = 16;
    switch (isa) {
        case Isa::reference:
            return true;
#if defined(__aarch64__)
        case Isa::neon:
            return true;  // part of the architecture
        case Isa::dotprod:
            return capability(at_hwcap, 20);  // HWCAP_ASIMDDP
        case Isa::i8mm:
            return cpu_has(Isa::dotprod) && capability(26, 13);  // AT_HWCAP2, HWCAP2_I8MM
#else
        case Isa::neon:
            return capability(at_hwcap, 12);  // HWCAP_NEON
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
