// Compiled without instruction set flags: it only reads the table.
#include "reason.h"

#include <cstring>

#include "cpu.h"

namespace lavolta {
namespace {

struct Entry {
    const char* op;
    Isa isa;
};

constexpr Entry kTable[] = {
#define LAVOLTA_KERNEL(op, isa) {#op, Isa::isa},
#include "table.inc"
#undef LAVOLTA_KERNEL
};

}  // namespace

std::string kernel_reason(const char* op, Isa chosen, Isa limit) {
    Isa allowed = chosen, missing = chosen;
    for (const Entry& entry : kTable) {
        if (std::strcmp(entry.op, op) != 0 || entry.isa <= chosen) continue;
        Isa& best = cpu_has(entry.isa) ? allowed : missing;
        if (entry.isa > best) best = entry.isa;
    }
    if (allowed > chosen) return "limited to " + std::string(isa_name(limit)) + "; this CPU could run " + isa_name(allowed);
    if (missing > chosen) return "the fastest for this CPU, which has no " + std::string(isa_name(missing));
    return "the fastest of this build";
}

}  // namespace lavolta
