// Every kernel of every instruction set that this CPU has against the portable reference, on odd sizes: kernel_test [ISA ...]
//
// Needs no Python, so that it runs on a device or under an emulator. Prints the checks of every instruction set.
#include <cstdio>
#include <cstring>

#include "check.h"
#include "cpu.h"

namespace lavolta {

size_t checks = 0, failures = 0;

void expect(bool good, const std::string& where, double value, double expected, double tolerance) {
    ++checks;
    if (good) return;
    if (++failures <= 20) {
        std::fprintf(stderr, "%s: %.9g, expected %.9g within %.3g\n", where.c_str(), value, expected, tolerance);
    }
}

}  // namespace lavolta

int main(int argc, char** argv) {
    using namespace lavolta;
    const KernelSet reference = select_kernels(Isa::reference);
    for (int i = 0; i < kIsaCount; ++i) {
        const auto isa = static_cast<Isa>(i);
        bool wanted = argc == 1;
        for (int a = 1; a < argc; ++a) wanted |= std::strcmp(argv[a], isa_name(isa)) == 0;
        if (!wanted || !cpu_has(isa)) continue;
        const size_t before = checks;
        const KernelSet kernels = select_kernels(isa);
        // An op without a test does not compile. The reference would be compared with itself.
#define LAVOLTA_OP(op, type) \
    if (isa != Isa::reference && kernels.op##_isa == isa) test_##op(isa, kernels.op, reference.op);
        LAVOLTA_OPS(LAVOLTA_OP)
#undef LAVOLTA_OP
        std::printf("%s %zu\n", isa_name(isa), checks - before);
    }
    if (failures) std::fprintf(stderr, "%zu of %zu checks failed\n", failures, checks);
    return failures ? 1 : 0;
}
